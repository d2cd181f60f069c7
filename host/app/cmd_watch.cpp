#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <deque>
#include <filesystem>
#include <thread>

#include "core/check.h"
#include "core/progress.h"
#include "host/app/commands.h"
#include "host/app/run_record.h"
#include "host/app/streams.h"
#include "host/app/watch.h"
#include "host/train/step_text.h"

namespace dapo {
namespace {

class Watch {
 public:
  Watch(const RunRecord& run, int64_t last)
      : folder_(run.path),
        most_(last),
        here_(run.origin.host.empty() || run.origin.host == host_name()),
        total_(std::max(run.total_steps(), run.log.last_step())),
        text_(total_),
        metrics_(run.path + "/metrics.jsonl"),
        log_(run.path + "/log.txt") {}

  void run() {
    history();
    for (;;) {
      if (follow()) since_line_ = {};
      // A run ends with its process. From another machine only its log shows that.
      if (here_ ? !runs_here(folder_) : !closing_.empty()) break;
      live_line();
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    follow();  // what was written before the end
    print(!closing_.empty() ? closing_
                            : fmt::format("the run is not running any more; its last step was {}", text_.last_step()));
  }

 private:
  static std::string host_name() {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    return name;
  }
  static int width() { return terminal_width(STDOUT_FILENO); }

  void print(const std::string& line) {
    if (live_) std::fputs("\r\x1b[K", stderr);
    live_ = false;
    print_out(line + "\n");
  }

  /// The last steps that are already there, with their alarms, but not the log's older notes.
  void history() {
    std::deque<MetricsLine> kept;
    size_t left_out = 0;
    for (std::string line; metrics_.next(line);) {
      std::optional<MetricsLine> m = parse_metrics(line);
      if (!m) continue;
      kept.push_back(std::move(*m));
      if (most_ > 0 && std::ssize(kept) > most_) {
        text_.skip(kept.front());
        kept.pop_front();
        ++left_out;
      }
    }
    if (left_out > 0) print(fmt::format("{} earlier steps are left out (--last {})", left_out, most_));
    for (const MetricsLine& m : kept) {
      show(m);
      for (const std::string& alarm : m.alarms) print("  note: " + alarm);
    }
    for (std::string line; log_.next(line);) closing_ = closing_words(line);
  }

  void show(const MetricsLine& m) {
    for (const std::string& line : text_.lines(m, width())) print(line);
  }

  /// Prints what is new; whether anything was.
  bool follow() {
    bool any = false;
    for (std::string line; metrics_.next(line); any = true)
      if (const std::optional<MetricsLine> m = parse_metrics(line)) {
        show(*m);
        if (!log_.exists())
          for (const std::string& alarm : m->alarms) print("  note: " + alarm);
      }
    for (std::string line; log_.next(line);) {  // its notes are the alarms, and what befell the run
      closing_ = closing_words(line);
      if (const std::string note = note_of(line); !note.empty()) print(note);
    }
    return any;
  }

  void live_line() {
    if (isatty(STDERR_FILENO) == 0) return;
    std::string text =
        text_.last_step() < total_ ? fmt::format("step {}", text_.last_step() + 1) : "after the last step";
    text += fmt::format("  {}", duration_text(since_line_.seconds()));
    if (text_.each() > 0) text += fmt::format(" of about {}", duration_text(text_.each()));
    if (const double left = text_.left() - since_line_.seconds(); left > 0) text += "  run " + left_text(left);
    std::fprintf(stderr, "\r\x1b[K%s", text.substr(0, std::max(0, terminal_width(STDERR_FILENO) - 1)).c_str());
    std::fflush(stderr);
    live_ = true;
  }

  const std::string folder_;
  const int64_t most_;
  const bool here_;  // the run is on this machine
  const int64_t total_;
  WatchText text_;
  LineFollower metrics_, log_;
  std::string closing_;  // the log's last line, if it ends the run
  Stopwatch since_line_;
  bool live_ = false;
};

}  // namespace

int run_watch_command(const WatchOptions& o) {
  Watch(read_run(o.run, 0), o.last).run();
  return kExitOk;
}

}  // namespace dapo
