// Rollout: responses to prompts, by continuous batching on the training weights.
//
// A pull engine: add() prompts at any time, call advance() while busy(); each call runs one prefill or a few decode
// steps and hands back the groups that became complete, so that verifying and over-sampling overlap with generation.
// A response is a pure function of (weights, prompt, sampling, seed, step, prompt key, sample): batch, page size,
// schedule and preemptions do not change a bit of it.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "core/progress.h"
#include "host/rollout/scheduler.h"
#include "model/decode.h"

namespace dapo {

enum class Finish : uint8_t {
  stop,   ///< ends with a stop id, which is its last token
  length  ///< cut at the limit
};
inline const char* finish_name(Finish f) {
  return f == Finish::stop ? "stop" : "length";
}

struct Response {
  std::vector<int32_t> ids;     ///< stop id included
  std::vector<float> log_prob;  ///< nats, at the sampling temperature, before top-k/top-p/min-p
  Finish finish = Finish::length;
  /// What counts as its text: the stop id ends it and is no part of it, special or not (as in vLLM).
  std::span<const int32_t> shown() const { return std::span(ids).first(ids.size() - (finish == Finish::stop)); }
};

struct Request {
  int64_t id = 0;  ///< the caller's; comes back in Group
  std::vector<int32_t> prompt;
  int samples = 1;
  int max_new = 0;         ///< tokens of a response at most, stop id included
  int32_t step = 0;        ///< DrawKey.step
  int32_t prompt_key = 0;  ///< DrawKey.prompt
  int first_sample = 0;    ///< DrawKey.sample of the first response
};

struct Group {
  int64_t id = 0;
  std::vector<int32_t> prompt;
  std::vector<Response> responses;
};

class Rollout {
 public:
  /// `stop`: every end id. The batch, the tokens of a prefill, the pages, and the decode steps between host
  /// synchronizations are the decoder's limits.
  Rollout(Decoder& decoder, std::vector<int32_t> stop);

  /// A new round: lays out the KV pages (Decoder::begin). No request may be unfinished.
  void begin(const Sampling& sampling);
  /// Error (exit 2) where prompt + max_new exceed the model's max_length or the page pool.
  void add(Request request);
  bool busy() const;
  const ModelConfig& model() const { return decoder_.config(); }
  int batch() const { return scheduler_.limits().batch; }  ///< sequences decoded at once, and samples of a request
  const std::vector<int32_t>& stop() const { return stop_; }
  /// One prefill or up to collect_every decode steps; the groups that it completed, oldest first.
  std::vector<Group> advance();

  /// begin(), all requests, groups in the order of the requests.
  std::vector<Group> generate(std::vector<Request> requests, const Sampling& sampling, Progress* progress = nullptr);

  struct Stats {
    int64_t drawn_tokens = 0;  ///< those that are part of a response
    int64_t finished = 0;      ///< responses
    int64_t preemptions = 0;
    double flops = 0;
  };
  /// Since the last begin().
  const Stats& stats() const { return stats_; }

  /// Hears every token as it is drawn (the stop id too): the request's id, sample, token. For streaming.
  std::function<void(int64_t id, int sample, int32_t token)> on_token;

 private:
  /// A request under way; index = the scheduler's group.
  struct Flight {
    Request request;
    std::vector<Response> responses;
    int unfinished;
  };
  void prefill(const Scheduler::Work& work);
  void decode(const Scheduler::Work& work);
  void start_batch(size_t sequences, size_t max_pages);
  void append_sequence(int group, int sequence, int own_length, size_t index);
  void accept(int sequence, int32_t token, float log_prob);

  Decoder& decoder_;
  std::vector<int32_t> stop_;
  Sampling sampling_;
  Scheduler scheduler_;
  std::vector<Flight> flights_;
  std::vector<int> complete_;  // groups that became complete in this advance()
  PagedBatch batch_;
  std::vector<int32_t> tokens_;
  std::vector<float> log_prob_;
  Stats stats_;
};

}  // namespace dapo
