#include "host/rollout/scheduler.h"

#include <algorithm>

namespace dapo {

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits), pages_(limits.pages) {
  CHECK(limits.batch > 0 && limits.prefill_rows > 0 && limits.page_size > 0 && limits.pages > 0 && limits.steps > 0);
}

int Scheduler::add(int prompt_length, int samples, int max_new) {
  CHECK(prompt_length > 0 && samples > 0 && max_new > 0, "prompt {}, samples {}, max_new {}", prompt_length, samples,
        max_new);
  const int need = pages_for(prompt_length) + pages_for(max_new - 1);  // the last token is never fed
  if (need > limits_.pages)
    fail_input("a prompt of {} tokens with {} new ones needs {} KV pages, there are {}: raise rollout.kv_memory_gb",
               prompt_length, max_new, need, limits_.pages);
  if (samples > limits_.batch)
    fail_input("{} responses a prompt, {} sequences decoded at once: raise rollout.max_num_seqs", samples,
               limits_.batch);
  const int g = static_cast<int>(groups_.size());
  groups_.push_back({prompt_length, samples, static_cast<int>(sequences_.size()), false, {}, 0});
  for (int i = 0; i < samples; ++i) {
    waiting_.insert(static_cast<int>(sequences_.size()));
    sequences_.push_back({g, i, 0, max_new, Sequence::waiting, {}});
  }
  unfinished_ += samples;
  return g;
}

void Scheduler::clear() {
  CHECK(!busy(), "{} sequences are unfinished", unfinished_);
  groups_.clear();
  sequences_.clear();
  preemptions_ = 0;
}

bool Scheduler::can_grow(const Sequence& s) const {
  return static_cast<int>(s.pages.size()) < pages_for(s.max_new - 1);
}

Scheduler::Work Scheduler::next() {
  if (served_ == pending_.size()) {
    pending_.clear();
    served_ = 0;
    while (!waiting_.empty() && running() < limits_.batch && admit_one()) {
    }
  }
  if (served_ < pending_.size()) {
    plan_chunks();
    return {Work::prefill, chunks_, {}, 0};
  }
  if (running_.empty()) {
    CHECK(waiting_.empty(), "{} sequences wait and none can run", waiting_.size());
    return {};
  }
  int steps = limits_.steps;
  for (int s : running_) steps = std::min(steps, sequence(s).max_new - sequence(s).tokens);
  grow_for(steps);
  decoding_.assign(running_.begin(), running_.end());
  return {Work::decode, {}, decoding_, steps};
}

bool Scheduler::admit_one() {
  const int index = *waiting_.begin();
  Sequence& s = sequences_[static_cast<size_t>(index)];
  Group& g = groups_[static_cast<size_t>(s.group)];
  const bool resident = g.running > 0;
  const int own_rows = std::max(s.tokens - 1, 0);
  const int first = pages_for(std::min(own_rows + limits_.steps, s.max_new - 1));
  if (!running_.empty()) {
    // A prefill call costs about a decode step however few its rows: wait until it brings a fair part of a batch.
    const int places = limits_.batch - running(), waiting = static_cast<int>(waiting_.size());
    if ((!resident || own_rows > 0) && places < std::min(waiting, std::max(g.samples, limits_.batch / 8))) return false;
    // One page is kept for each running sequence that may still grow, so that admission does not cause preemption.
    const int need = first + (resident ? 0 : pages_for(g.prompt_length));
    const int reserve = growing_ + (first < pages_for(s.max_new - 1) ? 1 : 0);
    if (pages_.free() < need + reserve) return false;
  }
  if (resident) {
    for (int32_t p : g.pages) pages_.hold(p);
  } else {
    for (int i = pages_for(g.prompt_length); i > 0; --i) g.pages.push_back(pages_.take());
    pending_.push_back({s.group, kPrompt, 0, g.prompt_length, !g.drawn});
  }
  ++g.running;
  for (int i = 0; i < first; ++i) s.pages.push_back(pages_.take());
  if (own_rows > 0) pending_.push_back({s.group, index, 0, own_rows, false});
  s.state = Sequence::running;
  growing_ += can_grow(s);
  waiting_.erase(waiting_.begin());
  running_.insert(index);
  return true;
}

void Scheduler::plan_chunks() {
  chunks_.clear();
  int rows = 0, draws = 0;
  while (served_ < pending_.size() && rows < limits_.prefill_rows && static_cast<int>(chunks_.size()) < limits_.batch) {
    Chunk& c = pending_[served_];
    if (c.rows > limits_.prefill_rows - rows) {  // a part of it; the rest opens the next call
      const int part = limits_.prefill_rows - rows;
      chunks_.push_back({c.group, c.sequence, c.begin, part, false});
      c.begin += part;
      c.rows -= part;
      return;
    }
    const int samples = c.draws ? group(c.group).samples : 0;
    if (draws + samples > limits_.batch) return;
    if (c.draws) groups_[static_cast<size_t>(c.group)].drawn = true;
    draws += samples;
    rows += c.rows;
    chunks_.push_back(c);
    ++served_;
  }
}

void Scheduler::grow_for(int steps) {
  for (auto it = running_.begin(); it != running_.end();) {
    const int index = *it;
    Sequence& s = sequences_[static_cast<size_t>(index)];
    const int target = pages_for(s.tokens - 1 + steps);
    const bool grew = can_grow(s);
    while (s.state == Sequence::running && static_cast<int>(s.pages.size()) < target) {
      if (pages_.free() > 0) {
        s.pages.push_back(pages_.take());
        if (grew && !can_grow(s)) --growing_;
      } else {
        ++preemptions_;
        leave(*running_.rbegin(), Sequence::waiting);  // the youngest; perhaps s itself
      }
    }
    it = running_.upper_bound(index);
  }
}

void Scheduler::leave(int index, Sequence::State state) {
  Sequence& s = sequences_[static_cast<size_t>(index)];
  Group& g = groups_[static_cast<size_t>(s.group)];
  CHECK_EQ(s.state, Sequence::running);
  growing_ -= can_grow(s);
  for (int32_t p : s.pages) pages_.drop(p);
  s.pages.clear();
  for (int32_t p : g.pages) pages_.drop(p);
  if (--g.running == 0) g.pages.clear();
  running_.erase(index);
  s.state = state;
  if (state == Sequence::waiting) waiting_.insert(index);
}

void Scheduler::accept(int index, bool last) {
  Sequence& s = sequences_[static_cast<size_t>(index)];
  CHECK_NE(s.state, Sequence::finished, "sequence {}", index);
  CHECK(group(s.group).drawn, "sequence {} got a token before its prompt was run", index);
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
  std::vector<int> holders(static_cast<size_t>(pages_.total()), 0);
  int unfinished = 0, growing = 0;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& s = sequences_[i];
    const int index = static_cast<int>(i);
    CHECK_EQ(running_.count(index), size_t{s.state == Sequence::running}, "sequence {}", i);
    CHECK_EQ(waiting_.count(index), size_t{s.state == Sequence::waiting}, "sequence {}", i);
    unfinished += s.state != Sequence::finished;
    if (s.state != Sequence::running) CHECK(s.pages.empty(), "sequence {} holds pages and does not run", i);
    if (s.state != Sequence::running) continue;
    growing += can_grow(s);
    CHECK_GE(static_cast<int>(s.pages.size()), pages_for(std::max(s.tokens - 1, 0)), "sequence {}", i);
    CHECK_LE(static_cast<int>(s.pages.size()), pages_for(s.max_new - 1), "sequence {}", i);
    for (int32_t p : s.pages) ++holders[static_cast<size_t>(p)];
    for (int32_t p : group(s.group).pages) ++holders[static_cast<size_t>(p)];
  }
  for (const Group& g : groups_) {
    int run = 0;
    for (int i = 0; i < g.samples; ++i) run += sequence(g.first_sequence + i).state == Sequence::running;
    CHECK_EQ(g.running, run);
    CHECK_EQ(static_cast<int>(g.pages.size()), run > 0 ? pages_for(g.prompt_length) : 0);
  }
  int held = 0;
  for (int p = 0; p < pages_.total(); ++p) {
    CHECK_EQ(pages_.holders(p), holders[static_cast<size_t>(p)], "page {}", p);
    held += holders[static_cast<size_t>(p)] > 0;
  }
  CHECK_EQ(held + pages_.free(), pages_.total());
  CHECK_EQ(unfinished_, unfinished);
  CHECK_EQ(growing_, growing);
  CHECK_LE(running(), limits_.batch);
}

}  // namespace dapo
