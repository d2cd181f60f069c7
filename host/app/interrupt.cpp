#include "host/app/interrupt.h"

#include <unistd.h>

#include <csignal>
#include <ctime>

#include "host/parallel/ranks.h"

namespace dapo {
namespace {

volatile std::sig_atomic_t signals = 0;
struct timespec first_at {};  // written by the handler before `signals`

void on_signal(int signal) {
  if (signals != 0 && signal == SIGHUP) return;  // a closing terminal sends one, and its shell another
  if (signals != 0) _exit(kExitInterrupted);
  clock_gettime(CLOCK_MONOTONIC, &first_at);
  signals = 1;
  constexpr char kText[] =
      "\ninterrupted: saving what is complete, then leaving; a second signal quits without saving\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof kText - 1);
}

void leave(int) {
  constexpr char kText[] = "\ninterrupted\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof kText - 1);
  _exit(kExitInterrupted);
}

void handle(void (*handler)(int)) {
  struct sigaction action {
  }, before{};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  if (!started_by_launch()) sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
}

}  // namespace

void leave_on_interrupts() {
  handle(leave);
}
void catch_interrupts() {
  handle(on_signal);
}

bool interrupted() {
  return signals != 0;
}

double seconds_since_interrupt() {
  if (!interrupted()) return 0;
  struct timespec now {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec - first_at.tv_sec + 1e-9 * (now.tv_nsec - first_at.tv_nsec);
}

}  // namespace dapo
