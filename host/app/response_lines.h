// Responses and their verdicts as JSON lines: the fields that rollouts/, eval/, `dapo eval` and `dapo verify` share.
#pragma once

#include "host/app/json_lines.h"
#include "host/verify/verify.h"

namespace dapo {

/// Adds "pred" and "reason", and "terms" if there are reward.terms.
JsonLine& add_verdict(JsonLine& line, const Verdict& verdict);

}  // namespace dapo
