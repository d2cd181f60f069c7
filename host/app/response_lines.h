// Responses and their verdicts as JSON lines: the fields that rollouts/, eval/, `dapo eval` and `dapo verify` share.
#pragma once

#include "host/app/json_lines.h"
#include "host/train/evaluate.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// Adds "pred" and "reason", and "terms" if there are reward.terms.
JsonLine& add_verdict(JsonLine& line, const Verdict& verdict);

/// Every response of an evaluation, a line each. `model`: for files with the responses of several models, else "".
void write_responses(LineWriter& out, const EvalResult& result, const Tokenizer& tokenizer,
                     const std::string& model = "");

}  // namespace dapo
