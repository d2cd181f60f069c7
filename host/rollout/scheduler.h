// Continuous batching over KV pages: decides what runs next. Knows prompts, sequences, pages and token counts, but
// neither tokens nor a device.
//
// A prompt has several samples, each a sequence. The prompt is prefilled once, and the first token of every sample is
// drawn from its last row; running samples share its pages. A sequence runs while it has a place in the decode batch.
// Admission is first come, first served, as places and free pages allow. When pages run out, the youngest running
// sequence is preempted: it releases its pages and waits, and its tokens are prefilled again later (to the same bits,
// since the ops are batch-invariant).
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "core/sizes.h"
#include "host/rollout/pages.h"

namespace dapo {

struct SchedulerLimits {
  int batch = 0;           ///< sequences decoded at once; also the most draws and sequences of one prefill call
  int prefill_tokens = 0;  ///< tokens of one prefill call
  int page_size = 0;       ///< tokens
  int pages = 0;
  int steps = 1;  ///< decode steps between host synchronizations (finished sequences are noticed only then)
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  /// Chunk::sequence of a chunk that belongs to the prompt itself, whose pages all samples share.
  static constexpr int kPrompt = -1;
  /// Tokens [begin, begin + tokens) of a prompt, or of one sequence's response, to be written into pages.
  struct Chunk {
    int prompt, sequence;
    int begin, tokens;
    bool draws;  ///< ends with the prompt's last token, for the first time: draw the first token of every sample
    bool of_prompt() const { return sequence == kPrompt; }
  };
  /// What to run next: one prefill call, or `steps` decode steps.
  struct Batch {
    enum Kind : uint8_t { none, prefill, decode } kind = none;
    std::span<const Chunk> chunks;   ///< prefill; valid until the next call of next()
    std::span<const int> sequences;  ///< decode, oldest first; valid until the next call of next()
    int steps = 0;                   ///< decode: each sequence holds pages for this many more tokens
  };

  /// What an earlier process drew of a sequence.
  struct Begun {
    int tokens;     ///< at least 1
    bool complete;  ///< nothing is left to draw
  };
  /// Returns the prompt's index; its samples are sequences first_sequence + 0..samples-1, of at most max_new tokens
  /// each. `begun`: empty, or what each has already: its tokens are prefilled as after a preemption. Error (exit 2) if
  /// one sequence alone would not fit into the pages.
  int add(int prompt_length, int samples, int max_new, std::span<const Begun> begun = {});
  /// The next batch; kind `none` when every sequence is finished.
  Batch next();
  /// Counts a token drawn for a sequence. `last`: the sequence is complete, leaves the batch and releases its pages.
  void accept(int sequence, bool last);

  bool busy() const { return unfinished_ > 0; }
  /// Forgets all prompts, unfinished ones too.
  void clear();

  struct Sequence {
    int prompt, sample;
    int tokens = 0;  ///< drawn so far
    int max_new = 0;
    enum State : uint8_t { waiting, running, finished } state = waiting;
    std::vector<int32_t> pages;  ///< of the response's tokens
  };
  struct Prompt {
    int length, samples, first_sequence;
    bool drawn = false;          ///< the first tokens of all samples have been drawn
    std::vector<int32_t> pages;  ///< empty unless a sample is running
    int running = 0;             ///< samples
  };
  const Sequence& sequence(int s) const { return sequences_[s]; }
  const Prompt& prompt(int p) const { return prompts_[p]; }
  const SchedulerLimits& limits() const { return limits_; }
  const Pages& pages() const { return pages_; }
  int64_t preemptions() const { return preemptions_; }
  int running() const { return std::ssize(running_); }

  /// CHECKs every invariant: page counts equal the number of holders; running sequences hold pages for their tokens,
  /// waiting and finished ones none; places and counters agree. Visits everything: for tests, after each move.
  void check() const;

 private:
  int pages_for(int tokens) const { return ceil_div(tokens, limits_.page_size); }
  bool can_grow(const Sequence& s) const;
  bool admit_one();
  void plan_chunks();
  void grow_for(int steps);
  void leave(int sequence, Sequence::State state);

  SchedulerLimits limits_;
  Pages pages_;
  std::vector<Prompt> prompts_;
  std::vector<Sequence> sequences_;
  std::set<int> waiting_, running_;
  std::vector<Chunk> pending_;  // of admitted prompts and sequences, in order
  size_t served_ = 0;           // chunks of pending_ that have been handed out
  std::vector<Chunk> chunks_;
  std::vector<int> decoding_;
  int growing_ = 0;  // running sequences that may need another page
  int unfinished_ = 0;
  int64_t preemptions_ = 0;
};

}  // namespace dapo
