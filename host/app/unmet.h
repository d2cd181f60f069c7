// Settings that will not have the effect that their words promise, each as a sentence: named before a run begins.
#pragma once

#include <string>
#include <vector>

#include "core/backend.h"
#include "data/dataset.h"
#include "host/train/settings.h"

namespace dapo {

/// From the settings and the machine. `fitted`: `given` after make_plan(); `kv_gb`: what the plan lays out for KV
/// pages.
std::vector<std::string> unmet_settings(const Config& given, const Config& fitted, double kv_gb,
                                        const Backend& backend);
/// pass@k that eval.n responses cannot give; "" where there is none.
std::string unmet_pass_k(const EvalSection& eval);
/// From the rows: those that bring a system message of their own where data.system_prompt is set, ground truths that
/// the verifier compares otherwise than meant, ...
std::vector<std::string> unmet_rows(const Config& config, const Dataset& train);

}  // namespace dapo
