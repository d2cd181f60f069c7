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
  return {l.batch, l.prefill_tokens, l.page_size, static_cast<int>(l.kv_pages), l.decode_steps};
}

}  // namespace

Rollout::Rollout(Decoder& decoder, std::vector<int32_t> stop)
    : decoder_(decoder), stop_(std::move(stop)), scheduler_(scheduler_limits(decoder.limits())) {}

void Rollout::begin(const Sampling& sampling) {
  scheduler_.clear();
  flights_.clear();
  stats_ = {};
  sampling_ = sampling;
  decoder_.begin();
}

void Rollout::add(Request request) {
  const int prompt = static_cast<int>(request.prompt.size()), most = decoder_.limits().max_length;
  if (prompt == 0) fail_input("request {}: an empty prompt", request.id);
  if (request.max_new < 1 || prompt + request.max_new > most)
    fail_input("request {}: a prompt of {} tokens and {} new ones, sequences are limited to {}", request.id, prompt,
               request.max_new, most);
  scheduler_.add(prompt, request.samples, request.max_new);
  const size_t samples = static_cast<size_t>(request.samples);
  flights_.push_back({std::move(request), std::vector<Response>(samples), static_cast<int>(samples)});
}

bool Rollout::busy() const {
  return scheduler_.busy();
}

std::vector<Group> Rollout::advance() {
  complete_.clear();
  const Scheduler::Work work = scheduler_.next();
  if (work.kind == Scheduler::Work::prefill) prefill(work);
  if (work.kind == Scheduler::Work::decode) decode(work);
  stats_.preemptions = scheduler_.preemptions();
  std::sort(complete_.begin(), complete_.end());
  std::vector<Group> out;
  out.reserve(complete_.size());
  for (int g : complete_) {
    Flight& f = flights_[static_cast<size_t>(g)];
    out.push_back({f.request.id, std::move(f.request.prompt), std::move(f.responses)});
  }
  return out;
}

std::vector<Group> Rollout::generate(std::vector<Request> requests, const Sampling& sampling, Progress* progress) {
  begin(sampling);
  std::vector<Group> groups(requests.size());
  std::vector<int64_t> ids;
  int64_t total = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    ids.push_back(std::exchange(requests[i].id, static_cast<int64_t>(i)));
    total += requests[i].samples;
    add(std::move(requests[i]));
  }
  while (busy()) {
    for (Group& g : advance()) {
      const size_t i = static_cast<size_t>(g.id);
      groups[i] = std::move(g);
      groups[i].id = ids[i];
    }
    if (progress != nullptr) progress->report(Phase::rollout, stats_.finished, total, stats_.drawn_tokens);
  }
  return groups;
}

void Rollout::start_batch(size_t sequences, size_t max_pages) {
  batch_.ids.clear();
  batch_.row_begin.assign(1, 0);
  batch_.prefix_length.clear();
  batch_.own_length.clear();
  batch_.pages.assign(sequences * max_pages, 0);
  batch_.max_pages = static_cast<int>(max_pages);
  batch_.head_rows.clear();
  batch_.keys.clear();
  batch_.positions.clear();
}

/// Lengths and pages of one sequence of the batch; Scheduler::kPrompt: the prompt of the group by itself.
void Rollout::append_sequence(int group, int sequence, int own_length, size_t index) {
  const Scheduler::Group& g = scheduler_.group(group);
  batch_.row_begin.push_back(static_cast<int32_t>(batch_.ids.size()));
  batch_.prefix_length.push_back(sequence == Scheduler::kPrompt ? 0 : g.prompt_length);
  batch_.own_length.push_back(own_length);
  int32_t* to = batch_.pages.data() + index * static_cast<size_t>(batch_.max_pages);
  to = std::copy(g.pages.begin(), g.pages.end(), to);
  if (sequence == Scheduler::kPrompt) return;
  const std::vector<int32_t>& own = scheduler_.sequence(sequence).pages;
  std::copy(own.begin(), own.end(), to);
}

void Rollout::prefill(const Scheduler::Work& work) {
  const NvtxRange range("prefill");
  size_t max_pages = 1;
  for (const Scheduler::Chunk& c : work.chunks)
    max_pages = std::max(max_pages, scheduler_.group(c.group).pages.size() +
                                        (c.of_prompt() ? 0 : scheduler_.sequence(c.sequence).pages.size()));
  start_batch(work.chunks.size(), max_pages);
  double pairs = 0;
  for (size_t i = 0; i < work.chunks.size(); ++i) {
    const Scheduler::Chunk& c = work.chunks[i];
    const Flight& f = flights_[static_cast<size_t>(c.group)];
    const std::vector<int32_t>& ids =
        c.of_prompt() ? f.request.prompt : f.responses[static_cast<size_t>(scheduler_.sequence(c.sequence).sample)].ids;
    batch_.ids.insert(batch_.ids.end(), ids.begin() + c.begin, ids.begin() + c.begin + c.rows);
    append_sequence(c.group, c.sequence, c.begin + c.rows, i);
    const double before = c.begin + (c.of_prompt() ? 0 : scheduler_.group(c.group).prompt_length);
    pairs += c.rows * before + 0.5 * c.rows * (c.rows + 1.0);
    for (int k = 0; c.draws && k < f.request.samples; ++k) {
      batch_.head_rows.push_back(static_cast<int32_t>(batch_.ids.size() - 1));
      batch_.keys.push_back({f.request.step, f.request.prompt_key, f.request.first_sample + k});
      batch_.positions.push_back(scheduler_.group(c.group).prompt_length);
    }
  }
  const size_t draws = batch_.head_rows.size();
  tokens_.resize(draws);
  log_prob_.resize(draws);
  decoder_.prefill(batch_, sampling_, tokens_, log_prob_);
  const double rows = static_cast<double>(batch_.ids.size());
  stats_.flops += decoder_.config().forward_flops(rows, pairs, static_cast<double>(draws));
  size_t next = 0;
  for (const Scheduler::Chunk& c : work.chunks) {
    if (!c.draws) continue;
    const Scheduler::Group& g = scheduler_.group(c.group);
    for (int k = 0; k < g.samples; ++k, ++next) accept(g.first_sequence + k, tokens_[next], log_prob_[next]);
  }
}

void Rollout::decode(const Scheduler::Work& work) {
  const NvtxRange range("decode");
  const size_t n = work.sequences.size(), steps = static_cast<size_t>(work.steps);
  size_t max_pages = 1;
  for (int s : work.sequences) {
    const Scheduler::Sequence& q = scheduler_.sequence(s);
    max_pages = std::max(max_pages, scheduler_.group(q.group).pages.size() + q.pages.size());
  }
  // Few widths of the page table: a device records a decode once for each.
  constexpr size_t kPagesStep = 8;
  const size_t most = static_cast<size_t>(most_sequence_pages(decoder_.limits()));
  start_batch(n, std::max(max_pages, std::min(most, round_up(max_pages, kPagesStep))));
  double pairs = 0;
  for (size_t b = 0; b < n; ++b) {
    const Scheduler::Sequence& q = scheduler_.sequence(work.sequences[b]);
    const Flight& f = flights_[static_cast<size_t>(q.group)];
    const int prompt = scheduler_.group(q.group).prompt_length;
    batch_.ids.push_back(f.responses[static_cast<size_t>(q.sample)].ids.back());
    append_sequence(q.group, work.sequences[b], q.tokens, b);
    batch_.keys.push_back({f.request.step, f.request.prompt_key, f.request.first_sample + q.sample});
    batch_.positions.push_back(prompt + q.tokens);
    pairs += prompt + q.tokens;
  }
  tokens_.resize(n * steps);
  log_prob_.resize(n * steps);
  decoder_.decode(batch_, work.steps, sampling_, tokens_, log_prob_);
  const double rows = static_cast<double>(n * steps);
  stats_.flops += decoder_.config().forward_flops(rows, pairs * work.steps, rows);
  for (size_t i = 0; i < steps; ++i)
    for (size_t b = 0; b < n; ++b)
      if (scheduler_.sequence(work.sequences[b]).state == Scheduler::Sequence::running)
        accept(work.sequences[b], tokens_[i * n + b], log_prob_[i * n + b]);
}

void Rollout::accept(int sequence, int32_t token, float log_prob) {
  const Scheduler::Sequence& q = scheduler_.sequence(sequence);
  const int group = q.group;
  Flight& f = flights_[static_cast<size_t>(group)];
  if (token < 0 || token >= decoder_.config().vocab || !std::isfinite(log_prob))
    fail(kExitNumerics,
         "rollout: the logits of a prompt's response are not finite at token {}: the weights hold NaN or infinity, or "
         "activations exceed the range of {}",
         q.tokens + 1, dtype_name(decoder_.dtype()));
  Response& r = f.responses[static_cast<size_t>(q.sample)];
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
  if (--f.unfinished == 0) complete_.push_back(group);
}

}  // namespace dapo
