// SIGINT, SIGTERM, SIGHUP: the first asks the run to save what is complete and leave; the second leaves at once.
#pragma once

#include "core/check.h"

namespace dapo {

/// From now on interrupted() is true after the first signal; the second ends the process with exit code 130. A SIGHUP
/// that the process was started to ignore (nohup) stays ignored.
void catch_interrupts();
bool interrupted();
/// Seconds since the first signal; 0 before it.
double seconds_since_interrupt();

/// Thrown where work is given up after a signal; exit code 130.
class Interrupted : public Error {
 public:
  explicit Interrupted(const std::string& what) : Error(kExitInterrupted, what) {}
};

}  // namespace dapo
