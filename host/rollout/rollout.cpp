#include "host/rollout/rollout.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/nvtx.h"
#include "core/sizes.h"

namespace dapo {
namespace {

SchedulerLimits scheduler_limits(const ModelLimits& l) {
  CHECK(l.batch > 0 && l.kv_pages > 0, "the decoder has no batch or no pages");
  return {.batch = l.batch,
          .prefill_tokens = l.prefill_tokens,
          .page_size = l.page_size,
          .pages = int(l.kv_pages),
          .steps = l.decode_steps};
}

}  // namespace

Rollout::Rollout(Decoder& decoder, std::vector<int32_t> stop)
    : decoder_(decoder), stop_(std::move(stop)), scheduler_(scheduler_limits(decoder.limits())) {}

void Rollout::begin(const Sampling& sampling) {
  scheduler_.clear();
  complete_.clear();
  flights_.clear();
  stats_ = {};
  sampling_ = sampling;
  decoder_.begin();
}

void Rollout::add(Request request) {
  const int prompt = request.prompt.size(), samples = request.samples, most = decoder_.limits().max_length;
  if (prompt == 0) fail_input("request {}: an empty prompt", request.id);
  if (request.max_new < 1 || prompt + request.max_new > most)
    fail_input("request {}: a prompt of {} tokens and {} new ones, sequences are limited to {}", request.id, prompt,
               request.max_new, most);
  // Every first token comes from the same prefill: all of the responses have begun, or none has.
  std::vector<Response> responses = std::exchange(request.begun, {});
  if (std::ranges::any_of(responses, [](const Response& r) { return r.ids.empty(); })) responses.clear();
  std::vector<Scheduler::Begun> begun;
  begun.reserve(responses.size());
  for (const Response& r : responses)
    begun.push_back({int(r.ids.size()), r.finish == Finish::stop || std::ssize(r.ids) == request.max_new});
  const int unfinished = samples - std::ranges::count_if(begun, &Scheduler::Begun::complete);
  responses.resize(samples);
  scheduler_.add(prompt, samples, request.max_new, begun);
  if (unfinished == 0) complete_.push_back(flights_.size());
  flights_.push_back({std::move(request), std::move(responses), unfinished});
}

std::vector<Response> Rollout::take_drawn(int64_t id) {
  const auto f = std::find_if(flights_.rbegin(), flights_.rend(), [id](const Flight& x) { return x.request.id == id; });
  return f == flights_.rend() ? std::vector<Response>() : std::move(f->responses);
}

int64_t Rollout::open() const {
  int64_t sum = 0;
  for (const Flight& f : flights_) sum += f.unfinished;
  return sum;
}

std::vector<Completion> Rollout::advance() {
  const int64_t preempted = scheduler_.preemptions();
  const Scheduler::Batch batch = scheduler_.next();
  stats_.preemptions += scheduler_.preemptions() - preempted;
  if (batch.kind == Scheduler::Batch::prefill) prefill(batch.chunks);
  if (batch.kind == Scheduler::Batch::decode) decode(batch.sequences, batch.steps);
  std::vector<int> complete = std::exchange(complete_, {});
  std::sort(complete.begin(), complete.end());
  std::vector<Completion> out;
  out.reserve(complete.size());
  for (int i : complete) {
    Flight& f = flights_[i];
    out.push_back({f.request.id, std::move(f.request.prompt), std::move(f.responses)});
  }
  return out;
}

std::vector<Completion> Rollout::generate(std::vector<Request> requests, const Sampling& sampling, Progress* progress) {
  begin(sampling);
  std::vector<Completion> completions(requests.size());
  std::vector<int64_t> ids;
  int64_t total = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    ids.push_back(std::exchange(requests[i].id, i));
    total += requests[i].samples;
    add(std::move(requests[i]));
  }
  while (busy()) {
    for (Completion& c : advance()) {
      const int64_t i = c.id;
      completions[i] = std::move(c);
      completions[i].id = ids[i];
    }
    if (progress != nullptr) progress->report(Phase::rollout, stats_.finished, total, stats_.drawn_tokens);
  }
  return completions;
}

void Rollout::start_batch(size_t sequences, size_t max_pages) {
  batch_.ids.clear();
  batch_.row_begin.assign(1, 0);
  batch_.prefix_length.clear();
  batch_.own_length.clear();
  batch_.pages.assign(sequences * max_pages, 0);
  batch_.max_pages = max_pages;
  batch_.head_rows.clear();
  batch_.keys.clear();
  batch_.positions.clear();
}

/// Ends a sequence of the batch, or a prompt by itself (Scheduler::kPrompt), whose new tokens have been appended.
void Rollout::append_sequence(int prompt, int sequence, int own_length) {
  const Scheduler::Prompt& p = scheduler_.prompt(prompt);
  const bool of_prompt = sequence == Scheduler::kPrompt;
  int32_t* to = batch_.pages.data() + batch_.own_length.size() * batch_.max_pages;
  batch_.row_begin.push_back(batch_.ids.size());
  batch_.prefix_length.push_back(of_prompt ? 0 : p.length);
  batch_.own_length.push_back(own_length);
  to = std::copy(p.pages.begin(), p.pages.end(), to);
  if (of_prompt) return;
  const std::vector<int32_t>& own = scheduler_.sequence(sequence).pages;
  std::copy(own.begin(), own.end(), to);
}

/// Draws from the last token appended, for `sample` of a flight; `position`: of the token that is drawn.
void Rollout::append_draw(const Flight& f, int sample, int position) {
  batch_.head_rows.push_back(batch_.ids.size() - 1);
  batch_.keys.push_back({f.request.step, f.request.prompt_key, f.request.first_sample + sample});
  batch_.positions.push_back(position);
}

void Rollout::prefill(std::span<const Scheduler::Chunk> chunks) {
  const NvtxRange range("prefill");
  size_t max_pages = 1;
  for (const Scheduler::Chunk& c : chunks)
    max_pages = std::max(max_pages, scheduler_.prompt(c.prompt).pages.size() +
                                        (c.of_prompt() ? 0 : scheduler_.sequence(c.sequence).pages.size()));
  start_batch(chunks.size(), max_pages);
  double pairs = 0;
  for (const Scheduler::Chunk& c : chunks) {
    const Flight& f = flights_[c.prompt];
    const int prompt = scheduler_.prompt(c.prompt).length;
    const std::vector<int32_t>& ids =
        c.of_prompt() ? f.request.prompt : f.responses[scheduler_.sequence(c.sequence).sample].ids;
    batch_.ids.insert(batch_.ids.end(), ids.begin() + c.begin, ids.begin() + c.begin + c.tokens);
    append_sequence(c.prompt, c.sequence, c.begin + c.tokens);
    const double before = c.begin + (c.of_prompt() ? 0 : prompt);
    pairs += c.tokens * before + 0.5 * c.tokens * (c.tokens + 1.0);
    for (int k = 0; c.draws && k < f.request.samples; ++k) append_draw(f, k, prompt);
  }
  const size_t draws = batch_.head_rows.size();
  tokens_.resize(draws);
  log_prob_.resize(draws);
  decoder_.prefill(batch_, sampling_, tokens_, log_prob_);
  stats_.flops += decoder_.config().forward_flops(batch_.ids.size(), pairs, draws);
  size_t next = 0;
  for (const Scheduler::Chunk& c : chunks) {
    if (!c.draws) continue;
    const Scheduler::Prompt& p = scheduler_.prompt(c.prompt);
    for (int k = 0; k < p.samples; ++k, ++next) accept(p.first_sequence + k, tokens_[next], log_prob_[next]);
  }
}

void Rollout::decode(std::span<const int> sequences, int steps) {
  const NvtxRange range("decode");
  const size_t n = sequences.size();
  size_t max_pages = 1;
  for (int s : sequences) {
    const Scheduler::Sequence& q = scheduler_.sequence(s);
    max_pages = std::max(max_pages, scheduler_.prompt(q.prompt).pages.size() + q.pages.size());
  }
  // Round the page table's width, since a device records its decode step (a CUDA graph) once for each width.
  constexpr size_t kPagesStep = 8;
  const size_t most = most_sequence_pages(decoder_.limits());
  start_batch(n, std::max(max_pages, std::min(most, round_up(max_pages, kPagesStep))));
  double pairs = 0;
  for (int s : sequences) {
    const Scheduler::Sequence& q = scheduler_.sequence(s);
    const Flight& f = flights_[q.prompt];
    const int position = scheduler_.prompt(q.prompt).length + q.tokens;
    batch_.ids.push_back(f.responses[q.sample].ids.back());
    append_sequence(q.prompt, s, q.tokens);
    append_draw(f, q.sample, position);
    pairs += position;
  }
  tokens_.resize(n * steps);
  log_prob_.resize(n * steps);
  decoder_.decode(batch_, steps, sampling_, tokens_, log_prob_);
  const double drawn = n * steps;
  stats_.flops += decoder_.config().forward_flops(drawn, pairs * steps, drawn);
  for (int i = 0; i < steps; ++i)
    for (size_t b = 0; b < n; ++b)
      if (scheduler_.sequence(sequences[b]).state == Scheduler::Sequence::running)
        accept(sequences[b], tokens_[i * n + b], log_prob_[i * n + b]);
}

void Rollout::accept(int sequence, int32_t token, float log_prob) {
  const Scheduler::Sequence& q = scheduler_.sequence(sequence);
  const int prompt = q.prompt;
  Flight& f = flights_[prompt];
  if (token < 0 || token >= decoder_.config().vocab || !std::isfinite(log_prob))
    fail(kExitNumerics,
         "rollout: the logits of a prompt's response are not finite at token {}: the weights hold NaN or infinity, or "
         "activations exceed the range of {}",
         q.tokens + 1, dtype_name(decoder_.dtype()));
  Response& r = f.responses[q.sample];
  r.ids.push_back(token);
  r.log_prob.push_back(log_prob);
  const bool stop = std::find(stop_.begin(), stop_.end(), token) != stop_.end();
  const bool last = stop || q.tokens + 1 == q.max_new;
  if (stop) r.finish = Finish::stop;
  ++stats_.drawn_tokens;
  if (on_token) on_token(f.request.id, f.request.first_sample + q.sample, token);
  scheduler_.accept(sequence, last);
  if (!last) return;
  ++stats_.finished;
  if (--f.unfinished == 0) complete_.push_back(prompt);
}

}  // namespace dapo
