#include "nccl_lanes.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ctime>

namespace sim {

Shared* map_shared(int file, int ranks) {
  const std::size_t bytes = Shared::bytes(ranks);
  if (ftruncate(file, static_cast<off_t>(bytes))) return nullptr;
  void* const p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  return p == MAP_FAILED ? nullptr : static_cast<Shared*>(p);
}

/// One end of a transfer between two ranks. Those of one lane go on in order.
struct Exchange::Transfer {
  Lane* lane;
  bool sends;
  Header header;
  char* data;
  Header other{};                  ///< that the sender has sent
  std::size_t head = 0, done = 0;  ///< bytes of the header and the data that have moved
  bool moved = false, answered = false, wrong = false;

  /// Moves what can be moved; true if anything was.
  bool move() {
    std::size_t n = 0;
    if (sends) {
      if (head < sizeof header)
        head += n = lane->sent.put(reinterpret_cast<char*>(&header) + head, sizeof header - head);
      if (head == sizeof header) {
        const std::size_t m = lane->sent.put(data + done, header.bytes - done);
        done += m, n += m;
        moved = done == header.bytes;
      }
      return n > 0 || moved;
    }
    if (head < sizeof other) head += n = lane->sent.take(reinterpret_cast<char*>(&other) + head, sizeof other - head);
    if (head == sizeof other) {
      wrong = other != header;
      const std::size_t m = lane->sent.take(wrong ? nullptr : data + done, other.bytes - done);
      done += m, n += m;
      moved = done == other.bytes;
    }
    return n > 0 || moved;
  }
  /// The receiver answers, the sender reads it.
  bool answer() {
    char word = wrong ? 1 : 0;
    answered = (sends ? lane->answers.take(&word, 1) : lane->answers.put(&word, 1)) == 1;
    if (sends && answered) wrong = word != 0;
    return answered;
  }
};

void Exchange::pass(Shared* group, std::size_t from, std::size_t to, bool sends, const Header& header, void* data) {
  Lane* const lane = &group->lane(from, to);
  all_.push_back(std::make_shared<Transfer>(
      Transfer{.lane = lane, .sends = sends, .header = header, .data = static_cast<char*>(data)}));
  open_[{lane, sends}].first.push_back(all_.back().get());
  groups_.push_back(group);
}

bool Exchange::step() {
  bool any = false;
  for (auto& [lane, queues] : open_) {
    auto& [moving, unanswered] = queues;
    while (!moving.empty() && moving.front()->move()) {
      any = true;
      if (!moving.front()->moved) break;
      unanswered.push_back(moving.front());
      moving.pop_front();
    }
    while (!unanswered.empty() && unanswered.front()->answer()) {
      any = true;
      unanswered.pop_front();
    }
  }
  return any;
}

Exchange::Result Exchange::run() {
  constexpr int kSpins = 100;
  const auto unfinished = [](const auto& lane) { return !lane.second.first.empty() || !lane.second.second.empty(); };
  for (int idle = 0; std::any_of(open_.begin(), open_.end(), unfinished);) {
    if (step()) {
      idle = 0;
      continue;
    }
    for (const Shared* s : groups_)
      if (s->aborted) return Result::aborted;
    const timespec pause{0, 50'000};
    if (++idle < kSpins)
      sched_yield();
    else
      nanosleep(&pause, nullptr);
  }
  return std::any_of(all_.begin(), all_.end(), [](const auto& t) { return t->wrong; }) ? Result::wrong : Result::done;
}

}  // namespace sim
