// A run of dapo_train, from where it begins to its end: the outer loop of Algorithm 1 with evaluations, checkpoints and
// signals.
#pragma once

#include <vector>

#include "host/app/provenance.h"
#include "host/app/resume.h"
#include "host/app/session.h"
#include "host/app/terminal.h"
#include "host/parallel/ranks.h"
#include "host/train/eval_sets.h"
#include "host/train/trainer.h"

namespace dapo {

/// `given`: the configuration before it was fitted to this machine. The trainer holds the state of `begin`. Returns the
/// exit code. `ranks`: the trainer's, which all call it; the first one writes the run's folder.
int train(const Config& config, const Config& given, Session& s, Trainer& trainer, const Dataset& data,
          const std::vector<EvalSet>& val, const Begin& begin, const RunNotes& notes, TerminalProgress& progress,
          Ranks& ranks);

}  // namespace dapo
