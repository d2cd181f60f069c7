// Rollout: responses to prompts, by continuous batching on the training weights.
//
// The caller pulls: add() requests at any time, then advance() while busy(). Each call runs one prefill or a few decode
// steps and returns the requests that they completed, so that responses are judged while others are still growing.
// A response is a pure function of (weights, prompt, sampling, seed, step, prompt key, sample): batch size, page size,
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
  stop,   ///< the last token is an end id
  length  ///< truncated at max_new tokens
};
inline const char* finish_name(Finish f) {
  return f == Finish::stop ? "stop" : "length";
}

struct Response {
  std::vector<int32_t> ids;     ///< end id included
  std::vector<float> log_prob;  ///< nats, at the sampling temperature, before top-k, top-p and min-p
  Finish finish = Finish::length;
  /// What counts as its text: the stop id ends it and is no part of it, special or not (as in vLLM).
  std::span<const int32_t> shown() const { return std::span(ids).first(ids.size() - (finish == Finish::stop)); }
};

struct Request {
  int64_t id = 0;  ///< chosen by the caller; returned in Completion
  std::vector<int32_t> prompt;
  int samples = 1;
  int max_new = 0;         ///< most tokens of a response, end id included
  int32_t step = 0;        ///< DrawKey.step
  int32_t prompt_key = 0;  ///< DrawKey.prompt
  int first_sample = 0;    ///< DrawKey.sample of the first response
  /// Empty, or what an interrupted round drew of each response (take_drawn): these tokens are not drawn again.
  std::vector<Response> begun;
};

/// A request, all of whose responses are complete.
struct Completion {
  int64_t id = 0;
  std::vector<int32_t> prompt;
  std::vector<Response> responses;
};

class Rollout {
 public:
  /// `stop`: every end id. The batch, the tokens of a prefill, the pages, and the decode steps between host
  /// synchronizations are the decoder's limits.
  Rollout(Decoder& decoder, std::vector<int32_t> stop);

  /// A new round: lays out the KV pages (Decoder::begin). Unfinished requests are given up.
  void begin(const Sampling& sampling);
  /// Error (exit 2) if prompt + max_new exceed the model's max_length or the page pool.
  void add(Request request);
  bool busy() const { return scheduler_.busy() || !complete_.empty(); }
  const ModelConfig& model() const { return decoder_.config(); }
  /// Most sequences decoded at once, and most samples of a request.
  int batch() const { return scheduler_.limits().batch; }
  /// Decode steps of one advance() at most.
  int steps() const { return scheduler_.limits().steps; }
  const std::vector<int32_t>& stop() const { return stop_; }
  /// Responses that are not complete.
  int64_t open() const;
  /// Runs one prefill or up to collect_every decode steps; returns the requests that these completed, oldest first.
  std::vector<Completion> advance();

  /// begin(), then all requests to their end; completions in the order of the requests.
  std::vector<Completion> generate(std::vector<Request> requests, const Sampling& sampling,
                                   Progress* progress = nullptr);

  /// When a round is given up: the responses of a request (the last of that id) as far as they are drawn, for Request::begun of a later
  /// process; empty if it has been returned as complete. Moves them out: the round cannot go on.
  std::vector<Response> take_drawn(int64_t id);

  struct Stats {
    int64_t drawn_tokens = 0;  ///< tokens that became part of a response
    int64_t finished = 0;      ///< responses
    int64_t preemptions = 0;
    double flops = 0;
  };
  /// Since the last begin(); a resumed round goes on from what it had.
  const Stats& stats() const { return stats_; }
  void resume_stats(const Stats& stats) { stats_ = stats; }

  /// Called with the request's id, the sample and the token for every token drawn (end ids included). For streaming.
  std::function<void(int64_t id, int sample, int32_t token)> on_token;

 private:
  /// A request under way; in flights_ at the index of the scheduler's prompt.
  struct Flight {
    Request request;
    std::vector<Response> responses;
    int unfinished;
  };
  void prefill(std::span<const Scheduler::Chunk> chunks);
  void decode(std::span<const int> sequences, int steps);
  void start_batch(size_t sequences, size_t max_pages);
  void append_sequence(int prompt, int sequence, int own_length);
  void append_draw(const Flight& f, int sample, int position);
  void accept(int sequence, int32_t token, float log_prob);

  Decoder& decoder_;
  std::vector<int32_t> stop_;
  Sampling sampling_;
  Scheduler scheduler_;
  std::vector<Flight> flights_;
  std::vector<int> complete_;  // flights completed in this advance()
  PagedBatch batch_;
  std::vector<int32_t> tokens_;
  std::vector<float> log_prob_;
  Stats stats_;
};

}  // namespace dapo
