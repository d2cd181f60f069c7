// command: a program of the user's judges, in any language. It reads one JSON object per line and answers each with one
// (docs/verifiers.md). As many processes run as threads ask; one that breaks the rules is killed, and the next request
// starts another.
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>

#include "core/answers.h"
#include "core/check.h"
#include "core/files.h"
#include "host/verify/line_process.h"
#include "host/verify/makers.h"

namespace dapo::verify {
namespace {
using Clock = std::chrono::steady_clock;
using nlohmann::json;

/// A text cut at blanks, except inside quotes.
std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> out;
  bool inside = false;  // a word
  char quote = 0;
  for (const char c : text) {
    if (quote == 0 && (c == ' ' || c == '\t' || c == '\n')) {
      inside = false;
      continue;
    }
    if (!inside) out.emplace_back();
    inside = true;
    if (quote == 0 && (c == '"' || c == '\''))
      quote = c;
    else if (c == quote)
      quote = 0;
    else
      out.back() += c;
  }
  if (quote != 0) fail_input("reward.command = {}: a quote is not closed", text);
  return out;
}

std::vector<std::string> arguments_of(const std::vector<std::string>& command) {
  std::vector<std::string> out = command.size() == 1 ? words_of(command[0]) : command;
  if (out.empty() || out[0].empty())
    fail_input(
        "reward.command is not set: it names the program of verifier \"command\", such as \"python3 reward.py\"");
  out[0] = expand_home(out[0]);
  return out;
}

std::string request_line(const VerifyItem& item) {
  json truth = item.ground_truth;
  if (item.ground_truth.find(kAnswerSeparator) != std::string::npos) {
    truth = json::array();
    for (size_t begin = 0, end = 0; begin <= item.ground_truth.size(); begin = end + 1) {
      end = std::min(item.ground_truth.find(kAnswerSeparator, begin), item.ground_truth.size());
      truth.push_back(item.ground_truth.substr(begin, end - begin));
    }
  }
  const nlohmann::ordered_json request = {{"id", item.id},
                                          {"prompt", item.prompt},
                                          {"response", item.response},
                                          {"ground_truth", truth},
                                          {"data_source", item.data_source}};
  return request.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string text_of(const json& answer, const char* key) {
  const auto at = answer.find(key);
  if (at == answer.end() || at->is_null()) return {};
  return at->is_string() ? at->get<std::string>() : at->dump();
}

/// The verdict in a line of output. Error if it is none.
void read_answer_line(const std::string& line, const VerifierOptions& options, Verdict& out) {
  const auto wrong = [&](std::string_view what) {
    std::string shown = json(line.substr(0, 100)).dump(-1, ' ', true, json::error_handler_t::replace);
    fail_input("printed {} {}; expected {{\"score\": 1.0, \"acc\": true, \"pred\": \"...\"}}", what, shown);
  };
  const json answer = json::parse(line, nullptr, false);
  if (answer.is_discarded()) wrong("what is not JSON:");
  if (!answer.is_object()) wrong("what is not a JSON object:");
  if (const std::string error = text_of(answer, "error"); !error.empty()) fail_input("reports: {}", error);
  const auto score = answer.find("score"), acc = answer.find("acc");
  if (score == answer.end() && acc == answer.end()) wrong("an object with neither \"score\" nor \"acc\":");
  if (acc != answer.end() && !acc->is_boolean() && !acc->is_number()) wrong("an \"acc\" that is not true or false:");
  if (score != answer.end() && !score->is_number()) wrong("a \"score\" that is not a number:");
  const double given = score != answer.end() ? score->get<double>() : 0;
  if (std::abs(given) > static_cast<double>(std::numeric_limits<float>::max())) wrong("a \"score\" out of range:");
  out.acc = acc == answer.end() ? given > 0 : acc->is_boolean() ? acc->get<bool>() : acc->get<double>() > 0;
  out.score = score == answer.end() ? (out.acc ? options.right : options.wrong) : static_cast<float>(given);
  out.pred = text_of(answer, "pred");
  out.found = answer.contains("pred") ? !out.pred.empty() : true;
  out.reason = text_of(answer, "reason");
  if (out.reason.empty()) out.reason = out.acc ? "right" : "wrong";
}

class Command final : public Verifier {
 public:
  explicit Command(const VerifierOptions& options) : Verifier(options), arguments_(arguments_of(options.command)) {
    idle_.push_back(std::make_unique<LineProcess>(arguments_));
  }
  ~Command() override {
    for (const auto& process : idle_) process->close_input();
  }
  size_t items_at_once() const override { return 1; }
  void cancel() const noexcept override { cancelled_ = true; }

 private:
  // A program that loads much needs more time for its first answer.
  static constexpr double kFirstAnswer = 10;  // times the limit

  void judge_item(const VerifyItem& item, Verdict& out) const override {
    std::unique_ptr<LineProcess> process;
    try {
      process = take();
      const double limit = options_.timeout * (process->answered() ? 1 : kFirstAnswer);
      read_answer_line(process->ask(request_line(item), limit, cancelled_), options_, out);
    } catch (const std::exception& e) {
      const bool useless = process == nullptr || !process->answered();
      process.reset();  // kills it
      note_failure(useless, e.what());
      fail_input("reward.command \"{}\" {}", arguments_[0], e.what());
    }
    const std::lock_guard lock(mutex_);
    failures_ = 0;
    idle_.push_back(std::move(process));
  }

  /// An idle process, or a new one.
  std::unique_ptr<LineProcess> take() const {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        auto process = std::move(idle_.back());
        idle_.pop_back();
        return process;
      }
      if (failures_ > 0 && Clock::now() < next_start_) fail_input("{}", why_);
    }
    return std::make_unique<LineProcess>(arguments_);
  }

  /// After a process that ended without any answer, the next one is started only after a while, which doubles each
  /// time: a program that fails at its start must not cost a start for every response.
  void note_failure(bool useless, const char* why) const {
    if (!useless) return;
    constexpr double kFirst = 0.1, kMost = 30;  // seconds
    const std::lock_guard lock(mutex_);
    if (why_ != why || failures_ == 0) why_ = why;
    const double pause = std::min(kMost, kFirst * std::exp2(std::min(failures_, 20)));
    if (failures_ == 0 || Clock::now() >= next_start_) {
      ++failures_;
      next_start_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(pause));
    }
  }

  const std::vector<std::string> arguments_;
  mutable std::atomic<bool> cancelled_ = false;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<LineProcess>> idle_;  // guarded by mutex_, as is what follows
  mutable int failures_ = 0;                                // processes in a row without any answer
  mutable Clock::time_point next_start_;
  mutable std::string why_;
};
}  // namespace

std::unique_ptr<Verifier> make_command(const VerifierOptions& options) {
  return std::make_unique<Command>(options);
}

}  // namespace dapo::verify
