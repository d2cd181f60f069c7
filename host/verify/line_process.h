// A child process that answers lines with lines, over pipes.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <string>
#include <string_view>
#include <vector>

namespace dapo::verify {

/// It has its own process group, so that a terminal's Ctrl-C does not reach it, none of our descriptors but its three
/// standard streams, and is killed when the thread that started it ends, however that happens. The destructor closes
/// its input, waits until it ends, up to kGrace seconds from the closing, kills what is left of the group, and reaps it.
class LineProcess {
 public:
  /// Error (exit 2) if the program cannot be started.
  explicit LineProcess(const std::vector<std::string>& command);
  ~LineProcess();
  LineProcess(const LineProcess&) = delete;
  LineProcess& operator=(const LineProcess&) = delete;

  /// Sends the line and returns the one that comes back, both without line ends. An Error says what the process did
  /// instead within `seconds`; it is then of no more use. So it is once `cancelled` becomes true.
  std::string ask(std::string_view line, double seconds, const std::atomic<bool>& cancelled);
  /// Whether it has ever answered.
  bool answered() const { return answered_; }
  /// The process should end by itself now: many can do so at the same time.
  void close_input();

  /// The longest line that is accepted as an answer.
  static constexpr size_t kLongestAnswer = 1 << 20;
  static constexpr double kGrace = 10;

 private:
  bool read_output();
  void read_errors();
  void wait_for_pipes(bool writing, double seconds);
  siginfo_t wait_for_end(double seconds, const std::atomic<bool>* cancelled);
  std::string end_text(const char* otherwise, const std::atomic<bool>& cancelled);
  [[noreturn]] void refuse_early_answer() const;

  pid_t pid_ = -1;
  int in_ = -1, out_ = -1, err_ = -1;  // our ends of its standard streams
  std::string output_, errors_;        // read and not used yet; the last of its standard error
  bool answered_ = false, broken_ = false;
  std::chrono::steady_clock::time_point input_closed_;
};

}  // namespace dapo::verify
