// SIGINT and SIGTERM: the first asks the run to finish its step, save and leave; the second leaves at once.
#pragma once

namespace dapo {

/// From now on interrupted() tells of the first signal; the second ends the process with exit code 130.
void catch_interrupts();
bool interrupted();

}  // namespace dapo
