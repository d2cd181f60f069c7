// Settings that will not have the effect that their name promises, each as a sentence, reported before a run starts.
#pragma once

#include <string>
#include <vector>

#include "core/backend.h"
#include "data/dataset.h"
#include "host/train/settings.h"

namespace dapo {

/// From the settings and the machine. `fitted`: `given` after make_plan(); `kv_gb`: what the plan reserves for KV
/// pages.
std::vector<std::string> unmet_settings(const Config& given, const Config& fitted, double kv_gb,
                                        const Backend& backend);
/// The pass@k that eval.n responses cannot estimate; "" if there are none.
std::string unmet_pass_k(const EvalSection& eval);
/// From the rows: those with their own system message although data.system_prompt is set, ground truths that the
/// verifier compares in another way than intended, ...
std::vector<std::string> unmet_rows(const Config& config, const Dataset& train);

}  // namespace dapo
