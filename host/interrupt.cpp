#include "host/interrupt.h"

#include <unistd.h>

#include <csignal>

#include "core/check.h"

namespace dapo {
namespace {

volatile std::sig_atomic_t signals = 0;

void on_signal(int) {
  if (signals != 0) _exit(kExitInterrupted);
  signals = 1;
  constexpr char kText[] = "\ninterrupted: finishing this step, then saving; once more leaves at once\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof kText - 1);
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() {
  return signals != 0;
}

}  // namespace dapo
