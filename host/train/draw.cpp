#include "host/train/draw.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <optional>

#include "core/check.h"
#include "host/train/share.h"

namespace dapo {
namespace {

/// Samples first, first + 1, ... of a group: one request.
struct Part {
  Group* group;
  int first, count;
  std::future<std::vector<Verdict>> verdicts;

  void take(std::vector<Response> responses) const {
    for (size_t i = 0; i < responses.size(); ++i) group->samples[first + i].response = std::move(responses[i]);
  }
  /// `meanwhile` is called ten times a second.
  void wait_for_verdicts(const std::function<void()>& meanwhile) {
    while (verdicts.wait_for(std::chrono::milliseconds(100)) != std::future_status::ready) meanwhile();
    std::vector<Verdict> all = verdicts.get();
    for (size_t i = 0; i < all.size(); ++i) group->samples[first + i].verdict = std::move(all[i]);
  }
};

std::vector<Response> take_responses(Group& group, int first, int count) {
  std::vector<Response> out(count);
  for (int i = 0; i < count; ++i) out[i] = std::exchange(group.samples[first + i].response, {});
  return out;
}

/// How long a rank draws before the ranks meet; the clock is that of a tensor group's first rank. What is drawn does not
/// depend on it, unless options.on_group decides by the order in which groups become complete: then it is a number of
/// decode steps, so that a run repeats.
constexpr double kSecondsBetweenMeetings = 1;
constexpr int kStepsBetweenMeetings = 16;

/// Groups while they are drawn, by one tensor group of ranks or several. Every rank holds the same list of groups. It is
/// dealt a few at a time: first evenly, then to the tensor groups that have least left. Where these meet, they exchange
/// errors and signals, and the groups that are complete if options.on_group wants those; then the next groups are dealt.
/// In the end they share what they have drawn. All of that is between ranks of Grid::data ("ranks" here), each of which
/// does what the others of its tensor group do; those agree on errors and signals after every call of the rollout.
class Drawing {
 public:
  Drawing(std::span<Group> groups, const Dataset& data, const DrawOptions& options, const Grid& grid, Rollout& rollout,
          Reward* reward, Progress& progress)
      : groups_(groups),
        data_(data),
        options_(options),
        grid_(grid),
        rollout_(rollout),
        reward_(reward),
        progress_(progress),
        rank_(grid.data.rank()),
        ranks_(grid.data.size()),
        before_(rollout.stats()),
        owner_(groups.size(), kNobody),
        shared_(groups.size(), false) {
    for (Group& g : groups) g.samples.resize(options.samples);
    reports_.resize(ranks_);
  }

  /// Draws until all is complete, options.on_group has enough, or a rank fails. Returns the seconds spent waiting for
  /// verdicts at the end.
  double run() {
    attempt([&] { deal(); });
    for (bool more = !groups_.empty(); more; more = meet()) attempt([&] { draw_for_a_while(); });
    double waited = 0;
    if (!failed() && !options_.on_group) attempt([&] { waited = wait_for_verdicts(); });
    if (interrupted() || (enough_ && rollout_.busy())) keep_unfinished();
    if (ranks_ > 1) share_all();
    if (original_ && grid_.world.size() == 1) std::rethrow_exception(original_);
    if (failed()) {
      CHECK(failure_.has_value(), "the ranks have agreed on errors");
      throw AgreedError(failure_->code(), failure_->what());
    }
    return waited;
  }

 private:
  static constexpr int kNobody = -1;

  /// A rank's state, exchanged when the ranks meet.
  struct Report {
    int64_t open = 0;  ///< responses under way
    int64_t finished = 0, drawn_tokens = 0;
    bool busy = false;
    int error = kExitOk;
    bool named = false;  ///< the error's text says which rank it is of
    int leader = 0;      ///< first rank of the tensor group, in the world
  };

  /// An error is that of the whole tensor group.
  template <class Work>
  void attempt(Work&& work) {
    if (own_error_) return;
    try {
      grid_.tensor.together(work);
    } catch (const AgreedError& e) {
      own_error_ = e, named_ = e.named();
      original_ = std::current_exception();
    } catch (const Error& e) {
      own_error_ = e;
      original_ = std::current_exception();
    } catch (const std::bad_alloc&) {
      own_error_ = Error(kExitResources, "out of memory");
      original_ = std::current_exception();
    }
    if (ranks_ == 1) failure_ = own_error_;
  }
  bool failed() const { return failure_.has_value() || own_error_.has_value(); }
  bool interrupted() const {
    const std::optional<Error>& e = failure_ ? failure_ : own_error_;
    return e && e->code() == kExitInterrupted;
  }
  /// Deals the groups that nobody has, each to the rank with the fewest responses under way, as long as that has not
  /// one group more than it decodes at once. One rank takes all.
  void deal() {
    const int64_t most = int64_t{rollout_.batch()} + options_.samples;
    while (next_ < groups_.size()) {
      const auto least = std::ranges::min_element(reports_, {}, &Report::open);
      if (ranks_ > 1 && least->open >= most) return;
      least->open += options_.samples;
      owner_[next_] = least - reports_.begin();
      if (owner_[next_] == rank_) begin(groups_[next_]);
      ++next_;
    }
  }

  void begin(Group& g) {
    for (int first = 0; first < options_.samples; first += rollout_.batch()) {
      const int count = std::min(options_.samples - first, rollout_.batch());
      rollout_.add({.id = std::ssize(parts_),
                    .prompt = g.prompt,
                    .samples = count,
                    .max_new = options_.max_new,
                    .step = g.step,
                    .prompt_key = g.prompt_key,
                    .first_sample = first,
                    .begun = take_responses(g, first, count)});
      parts_.push_back({&g, first, count, {}});
      ++open_[&g];
    }
  }

  /// Runs the rollout once with one rank, otherwise until the ranks meet.
  void draw_for_a_while() {
    const Stopwatch watch;
    const int rounds = ranks_ == 1 ? 1 : std::max(1, kStepsBetweenMeetings / rollout_.steps());
    const auto meets = [&](int i) {
      if (ranks_ == 1 || options_.on_group) return i == rounds;
      return value_of_first(grid_.tensor, watch.seconds() > kSecondsBetweenMeetings);
    };
    for (int i = 0; rollout_.busy() && !meets(i); ++i) {
      std::vector<Part*> complete;
      std::vector<Completion> completions = rollout_.advance();
      grid_.tensor.together([&] {
        for (Completion& c : completions) {
          Part& part = parts_[c.id];
          if (reward_ != nullptr) part.verdicts = reward_->judge(c.responses, data_[part.group->example]);
          part.take(std::move(c.responses));
          complete.push_back(&part);
        }
        report();
      });
      if (!options_.on_group) continue;
      share_verdicts(complete);
      for (const Part* part : complete)
        if (--open_[part->group] == 0) complete_.push_back(part->group - groups_.data());
    }
  }

  /// Waits for verdicts, which the first rank of the tensor group has asked for.
  void share_verdicts(const std::vector<Part*>& parts) {
    Comm& tensor = grid_.tensor;
    if (parts.empty()) return;
    tensor.together([&] {
      if (reward_ == nullptr) return;
      for (Part* part : parts) part->wait_for_verdicts([this] { report(); });
    });
    if (tensor.size() == 1) return;
    ByteWriter out;
    const auto each = [&](auto&& verdict) {
      for (const Part* part : parts)
        for (int i = 0; i < part->count; ++i) verdict(part->group->samples[part->first + i].verdict);
    };
    if (reward_ != nullptr) each([&](const Verdict& v) { out.put(v); });
    const std::string bytes = tensor.broadcast_bytes(out.bytes(), 0);
    ByteReader in(bytes);
    if (reward_ == nullptr) each([&](Verdict& v) { in.get(v); });
  }

  void report() {
    int64_t finished = own_finished(), tokens = own_tokens();
    for (int r = 0; r < ranks_; ++r)
      if (r != rank_) finished += reports_[r].finished, tokens += reports_[r].drawn_tokens;
    progress_.report(options_.phase, finished, std::ssize(groups_) * options_.samples, tokens);
  }
  int64_t own_finished() const { return rollout_.stats().finished - before_.finished; }
  int64_t own_tokens() const { return rollout_.stats().drawn_tokens - before_.drawn_tokens; }

  void put(ByteWriter& out, size_t group) const {
    out.put(group);
    for (const Sample& s : groups_[group].samples) out.put(s);
  }
  size_t get(ByteReader& in) {
    const size_t group = in.get<size_t>();
    for (Sample& s : groups_[group].samples) in.get(s);
    return group;
  }
  /// The error of the lowest rank that has one, but rather one that is no signal.
  void note_failures(const std::vector<Report>& reports, const std::vector<std::string>& errors) {
    for (int r = 0; r < ranks_; ++r) {
      const int code = reports[r].error;
      if (code == kExitOk || (failure_ && failure_->code() != kExitInterrupted)) continue;
      if (!failure_ || code != kExitInterrupted)
        failure_.emplace(code, reports[r].named ? errors[r] : fmt::format("rank {}: {}", reports[r].leader, errors[r]));
    }
  }

  /// Exchanges reports and complete groups, deals on; whether to go on.
  bool meet() {
    const auto done = std::exchange(complete_, {});
    std::vector<size_t> filed = done;
    if (ranks_ > 1) {
      filed.clear();
      const Report own{.open = rollout_.open(),
                       .finished = own_finished(),
                       .drawn_tokens = own_tokens(),
                       .busy = rollout_.busy(),
                       .error = own_error_ ? own_error_->code() : kExitOk,
                       .named = named_,
                       .leader = leader()};
      ByteWriter out;
      out.put(own);
      out.put(own_error_ ? std::string(own_error_->what()) : "");
      for (const size_t g : done) put(out, g);
      std::vector<std::string> errors(ranks_);
      const std::vector<std::string> all = grid_.data.all_gather_bytes(out.bytes());
      for (int r = 0; r < ranks_; ++r) {
        ByteReader in(all[r]);
        in.get(reports_[r]);
        in.get(errors[r]);
        while (!in.done()) filed.push_back(get(in));
      }
      note_failures(reports_, errors);
    }
    for (const size_t g : filed) {
      shared_[g] = true;
      if (options_.on_group) enough_ = options_.on_group(groups_[g]) || enough_;
    }
    if (failure_ || enough_) return false;
    attempt([&] { deal(); });
    if (ranks_ == 1) return rollout_.busy();
    return next_ < groups_.size() ||
           std::ranges::any_of(reports_, [](const Report& r) { return r.busy || r.open > 0; });
  }

  /// Gives the groups what was drawn of responses that are not complete.
  void keep_unfinished() {
    for (size_t i = 0; i < parts_.size(); ++i) parts_[i].take(rollout_.take_drawn(i));
  }
  /// Waits for verdicts that are still under way. Returns the seconds.
  double wait_for_verdicts() {
    const Stopwatch waiting;
    std::vector<Part*> all;
    for (Part& part : parts_) all.push_back(&part);
    share_verdicts(all);
    return waiting.seconds();
  }
  /// Every rank gets what the others have drawn, and the statistics of all.
  void share_all() {
    const Report own{.error = own_error_ ? own_error_->code() : kExitOk, .named = named_, .leader = leader()};
    Rollout::Stats stats = rollout_.stats();
    stats.drawn_tokens -= before_.drawn_tokens, stats.finished -= before_.finished;
    stats.preemptions -= before_.preemptions, stats.flops -= before_.flops;
    ByteWriter out;
    out.put(own);
    out.put(own_error_ ? std::string(own_error_->what()) : "");
    out.put(stats);
    for (size_t g = 0; g < groups_.size(); ++g)
      if (owner_[g] == rank_ && !shared_[g]) put(out, g);
    std::vector<std::string> errors(ranks_);
    const std::vector<std::string> all = grid_.data.all_gather_bytes(out.bytes());
    Rollout::Stats sum = before_;
    for (int r = 0; r < ranks_; ++r) {
      ByteReader in(all[r]);
      in.get(reports_[r]);
      in.get(errors[r]);
      in.get(stats);
      sum.drawn_tokens += stats.drawn_tokens, sum.finished += stats.finished;
      sum.preemptions += stats.preemptions, sum.flops += stats.flops;
      while (!in.done()) get(in);
    }
    rollout_.resume_stats(sum);
    note_failures(reports_, errors);
  }

  const std::span<Group> groups_;
  const Dataset& data_;
  int leader() const { return grid_.world.rank() - grid_.tensor.rank(); }

  const DrawOptions& options_;
  const Grid& grid_;
  Rollout& rollout_;
  Reward* const reward_;
  Progress& progress_;
  const int rank_, ranks_;
  const Rollout::Stats before_;
  std::vector<Report> reports_;       // of the last meeting, by rank
  std::vector<int> owner_;            // of each group: its rank
  std::vector<bool> shared_;          // groups that every rank has whole
  size_t next_ = 0;                   // groups that have been dealt
  std::vector<Part> parts_;           // of this rank
  std::map<const Group*, int> open_;  // requests of a group that are not complete
  std::vector<size_t> complete_;      // groups of this rank since the last meeting
  bool enough_ = false;
  std::optional<Error> own_error_, failure_;  // failure_: of any rank, known to all
  bool named_ = false;                        // own_error_ says which rank it is of
  std::exception_ptr original_;
};

}  // namespace

double draw_and_judge(std::span<Group> groups, const Dataset& data, const DrawOptions& options, Rollout& rollout,
                      Reward* reward, Progress& progress) {
  SingleComm alone([](void*, const Tensor& to, const Tensor& from) { std::memcpy(to.data, from.data, from.bytes()); },
                   nullptr);
  const HostGrid single(alone);
  return Drawing(groups, data, options, options.grid != nullptr ? *options.grid : single.grid(), rollout, reward,
                 progress)
      .run();
}

}  // namespace dapo
