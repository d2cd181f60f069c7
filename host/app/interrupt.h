// SIGINT, SIGTERM, SIGHUP: the first makes the run save what is complete and exit; the second exits at once.
#pragma once

#include "core/check.h"

namespace dapo {

/// Until there is something to save, the first signal ends the process with exit code 130.
void leave_on_interrupts();
/// From here on there is: interrupted() is true after the first signal; the second ends the process with exit code 130.
void catch_interrupts();
// With either, a SIGHUP that was already ignored at the start (nohup) stays ignored. In a rank that `dapo_train` started,
// SIGTERM ends the process: signals come from there as SIGINT, and mpirun sends a SIGTERM when another rank has died.
bool interrupted();
/// Seconds since the first signal; 0 before it.
double seconds_since_interrupt();

/// Thrown when work is abandoned after a signal; exit code 130.
class Interrupted : public Error {
 public:
  explicit Interrupted(const std::string& what) : Error(kExitInterrupted, what) {}
};

}  // namespace dapo
