#include "host/rollout/scheduler.h"

#include <algorithm>

namespace dapo {

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits), pages_(limits.pages) {
  CHECK(limits.batch > 0 && limits.prefill_tokens > 0 && limits.page_size > 0 && limits.pages > 0 && limits.steps > 0);
}

int Scheduler::add(int prompt_length, int samples, int max_new, std::span<const Begun> begun) {
  CHECK(prompt_length > 0 && samples > 0 && max_new > 0, "prompt {}, samples {}, max_new {}", prompt_length, samples,
        max_new);
  const int need = pages_for(prompt_length) + pages_for(max_new - 1);  // the last token is never fed
  if (need > limits_.pages)
    fail_input("a prompt of {} tokens with {} new ones needs {} KV pages, there are {}: raise rollout.kv_memory_gb",
               prompt_length, max_new, need, limits_.pages);
  if (samples > limits_.batch)
    fail_input("{} responses a prompt, {} sequences decoded at once: raise rollout.max_num_seqs", samples,
               limits_.batch);
  const int index = prompts_.size(), first = sequences_.size();
  CHECK(begun.empty() || std::ssize(begun) == samples, "{} of {} samples are begun", begun.size(), samples);
  prompts_.push_back({prompt_length, samples, first, !begun.empty(), {}, 0});
  for (int i = 0; i < samples; ++i) {
    const Begun has = begun.empty() ? Begun{0, false} : begun[i];
    CHECK(begun.empty() || (has.tokens > 0 && has.tokens + !has.complete <= max_new), "sample {}", i);
    sequences_.push_back({index, i, has.tokens, max_new, has.complete ? Sequence::finished : Sequence::waiting, {}});
    if (has.complete) continue;
    waiting_.insert(first + i);
    ++unfinished_;
  }
  return index;
}

void Scheduler::clear() {
  prompts_.clear();
  sequences_.clear();
  waiting_.clear();
  running_.clear();
  pending_.clear();
  served_ = 0;
  pages_ = Pages(limits_.pages);
  growing_ = unfinished_ = 0;
  preemptions_ = 0;
}

bool Scheduler::can_grow(const Sequence& s) const {
  return std::ssize(s.pages) < pages_for(s.max_new - 1);
}

Scheduler::Batch Scheduler::next() {
  if (served_ == pending_.size()) {
    pending_.clear();
    served_ = 0;
    while (!waiting_.empty() && running() < limits_.batch && admit_one()) {
    }
  }
  if (served_ < pending_.size()) {
    plan_chunks();
    return {Batch::prefill, chunks_, {}, 0};
  }
  if (running_.empty()) {
    CHECK(waiting_.empty(), "{} sequences wait and none can run", waiting_.size());
    return {};
  }
  int steps = limits_.steps;
  for (int s : running_) steps = std::min(steps, sequence(s).max_new - sequence(s).tokens);
  grow_for(steps);
  decoding_.assign(running_.begin(), running_.end());
  return {Batch::decode, {}, decoding_, steps};
}

bool Scheduler::admit_one() {
  const int index = *waiting_.begin();
  Sequence& s = sequences_[index];
  Prompt& p = prompts_[s.prompt];
  const bool resident = p.running > 0;
  const int own_tokens = std::max(s.tokens - 1, 0);  // the last one drawn is not in the pages yet
  const int first = pages_for(std::min(own_tokens + limits_.steps, s.max_new - 1));
  if (!running_.empty()) {
    // However few its tokens, a prefill call costs about a decode step: wait until it fills a fair part of a batch.
    const int places = limits_.batch - running(), waiting = waiting_.size();
    if ((!resident || own_tokens > 0) && places < std::min(waiting, std::max(p.samples, limits_.batch / 8)))
      return false;
    // Leave one page for each running sequence that may still grow, so that admission does not cause preemption.
    const int need = first + (resident ? 0 : pages_for(p.length));
    const int reserve = growing_ + (first < pages_for(s.max_new - 1) ? 1 : 0);
    if (pages_.free() < need + reserve) return false;
  }
  if (resident) {
    for (int32_t page : p.pages) pages_.retain(page);
  } else {
    for (int i = pages_for(p.length); i > 0; --i) p.pages.push_back(pages_.allocate());
    pending_.push_back({s.prompt, kPrompt, 0, p.length, !p.drawn});
  }
  ++p.running;
  for (int i = 0; i < first; ++i) s.pages.push_back(pages_.allocate());
  if (own_tokens > 0) pending_.push_back({s.prompt, index, 0, own_tokens, false});
  s.state = Sequence::running;
  growing_ += can_grow(s);
  waiting_.erase(waiting_.begin());
  running_.insert(index);
  return true;
}

void Scheduler::plan_chunks() {
  chunks_.clear();
  int tokens = 0, draws = 0;
  while (served_ < pending_.size() && tokens < limits_.prefill_tokens && std::ssize(chunks_) < limits_.batch) {
    Chunk& c = pending_[served_];
    if (c.tokens > limits_.prefill_tokens - tokens) {  // a part of it; the rest opens the next call
      const int part = limits_.prefill_tokens - tokens;
      chunks_.push_back({c.prompt, c.sequence, c.begin, part, false});
      c.begin += part;
      c.tokens -= part;
      return;
    }
    const int samples = c.draws ? prompt(c.prompt).samples : 0;
    if (draws + samples > limits_.batch) return;
    if (c.draws) prompts_[c.prompt].drawn = true;
    draws += samples;
    tokens += c.tokens;
    chunks_.push_back(c);
    ++served_;
  }
}

void Scheduler::grow_for(int steps) {
  for (auto it = running_.begin(); it != running_.end();) {
    const int index = *it;
    Sequence& s = sequences_[index];
    const int target = pages_for(s.tokens - 1 + steps);
    const bool grew = can_grow(s);
    while (s.state == Sequence::running && std::ssize(s.pages) < target) {
      if (pages_.free() > 0) {
        s.pages.push_back(pages_.allocate());
        if (grew && !can_grow(s)) --growing_;
      } else {
        ++preemptions_;
        leave(*running_.rbegin(), Sequence::waiting);  // the youngest, which may be s itself
      }
    }
    it = running_.upper_bound(index);
  }
}

void Scheduler::leave(int index, Sequence::State state) {
  Sequence& s = sequences_[index];
  Prompt& p = prompts_[s.prompt];
  CHECK_EQ(s.state, Sequence::running);
  growing_ -= can_grow(s);
  for (int32_t page : s.pages) pages_.release(page);
  s.pages.clear();
  for (int32_t page : p.pages) pages_.release(page);
  if (--p.running == 0) p.pages.clear();
  running_.erase(index);
  s.state = state;
  if (state == Sequence::waiting) waiting_.insert(index);
}

void Scheduler::accept(int index, bool last) {
  Sequence& s = sequences_[index];
  CHECK_NE(s.state, Sequence::finished, "sequence {}", index);
  CHECK(prompt(s.prompt).drawn, "sequence {} got a token before its prompt was run", index);
  ++s.tokens;
  CHECK(s.tokens < s.max_new || last, "sequence {} is past its {} tokens", index, s.max_new);
  if (!last) return;
  --unfinished_;
  if (s.state == Sequence::running) {
    leave(index, Sequence::finished);
  } else {
    waiting_.erase(index);
    s.state = Sequence::finished;
  }
}

void Scheduler::check() const {
  std::vector<int> holders(pages_.total(), 0);
  int unfinished = 0, growing = 0;
  for (int i = 0; i < std::ssize(sequences_); ++i) {
    const Sequence& s = sequences_[i];
    CHECK_EQ(running_.count(i), size_t{s.state == Sequence::running}, "sequence {}", i);
    CHECK_EQ(waiting_.count(i), size_t{s.state == Sequence::waiting}, "sequence {}", i);
    unfinished += s.state != Sequence::finished;
    if (s.state != Sequence::running) CHECK(s.pages.empty(), "sequence {} holds pages but is not running", i);
    if (s.state != Sequence::running) continue;
    growing += can_grow(s);
    CHECK_GE(std::ssize(s.pages), pages_for(std::max(s.tokens - 1, 0)), "sequence {}", i);
    CHECK_LE(std::ssize(s.pages), pages_for(s.max_new - 1), "sequence {}", i);
    for (int32_t page : s.pages) ++holders[page];
    for (int32_t page : prompt(s.prompt).pages) ++holders[page];
  }
  for (const Prompt& p : prompts_) {
    int run = 0;
    for (int i = 0; i < p.samples; ++i) run += sequence(p.first_sequence + i).state == Sequence::running;
    CHECK_EQ(p.running, run);
    CHECK_EQ(std::ssize(p.pages), run > 0 ? pages_for(p.length) : 0);
  }
  int held = 0;
  for (int page = 0; page < pages_.total(); ++page) {
    CHECK_EQ(pages_.holders(page), holders[page], "page {}", page);
    held += holders[page] > 0;
  }
  CHECK_EQ(held + pages_.free(), pages_.total());
  CHECK_EQ(unfinished_, unfinished);
  CHECK_EQ(growing_, growing);
  CHECK_LE(running(), limits_.batch);
}

}  // namespace dapo
