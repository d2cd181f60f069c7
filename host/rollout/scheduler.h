// Continuous batching over KV pages: what runs next. Knows sequences, pages and row counts; no tokens, no device.
//
// A group is a prompt and its samples. The prompt is prefilled once, alone, and draws the first token of all samples at
// once; its pages are shared by those that run. A sequence runs while it holds a place in the decode batch. Admission
// is first come, first served, by places and free pages; when pages run out, the youngest running sequence gives its
// pages back and waits (its tokens are prefilled again later: the same bits, by batch invariance).
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "core/sizes.h"
#include "host/rollout/pages.h"

namespace dapo {

struct SchedulerLimits {
  int batch = 0;         ///< decode sequences; also draws and sequences of one prefill call
  int prefill_rows = 0;  ///< rows of one prefill call
  int page_size = 0;     ///< tokens
  int pages = 0;
  int steps = 1;  ///< decode steps between looks by the host
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  static constexpr int kPrompt = -1;  ///< in place of a sequence: the prompt of its group
  /// Tokens [begin, begin + rows) of a prompt (sequence == kPrompt), or of a sequence's own, to be put into pages.
  struct Chunk {
    int group, sequence;
    int begin, rows;
    bool of_prompt() const { return sequence == kPrompt; }
    bool draws;  ///< the prompt's last row, for the first time: draw the first token of every sample
  };
  struct Work {
    enum Kind : uint8_t { none, prefill, decode } kind = none;
    std::span<const Chunk> chunks;   ///< prefill; valid until the next call of next()
    std::span<const int> sequences;  ///< decode, oldest first; the same
    int steps = 0;                   ///< decode: pages for so many more tokens of each are there
  };

  /// Index of the group; its samples are sequences first_sequence(group) + 0..samples-1. A sample has at most max_new
  /// tokens. Error (exit 2) where one sequence alone would not fit into the pages.
  int add(int prompt_length, int samples, int max_new);
  /// What to run now; kind none when every sequence is finished.
  Work next();
  /// A sequence got its next token; `last`: it is complete, leaves the batch and gives its pages back.
  void accept(int sequence, bool last);

  bool busy() const { return unfinished_ > 0; }
  /// Forgets all groups; nothing may be unfinished.
  void clear();

  struct Sequence {
    int group, sample;
    int tokens = 0;  ///< drawn so far
    int max_new = 0;
    enum State : uint8_t { waiting, running, finished } state = waiting;
    std::vector<int32_t> pages;  ///< of its own tokens
  };
  struct Group {
    int prompt_length, samples, first_sequence;
    bool drawn = false;          ///< first tokens are there
    std::vector<int32_t> pages;  ///< the prompt's, while a sample runs; else empty
    int running = 0;
  };
  const Sequence& sequence(int s) const { return sequences_[static_cast<size_t>(s)]; }
  const Group& group(int g) const { return groups_[static_cast<size_t>(g)]; }
  const SchedulerLimits& limits() const { return limits_; }
  const Pages& pages() const { return pages_; }
  int64_t preemptions() const { return preemptions_; }
  int running() const { return static_cast<int>(running_.size()); }

  /// Every invariant: each page has as many holders as its count says; running sequences hold pages for their tokens,
  /// waiting and finished ones none; places and counters agree. O(everything); tests call it after each move.
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
  std::vector<Group> groups_;
  std::vector<Sequence> sequences_;
  std::set<int> waiting_, running_;
  std::vector<Chunk> pending_;  // rows of admitted prompts and sequences, in order; served from the front
  size_t served_ = 0;
  std::vector<Chunk> chunks_;
  std::vector<int> decoding_;
  int growing_ = 0;  // running sequences that may need another page
  int unfinished_ = 0;
  int64_t preemptions_ = 0;
};

}  // namespace dapo
