// Part of `math`: where the answer stands in a response that may have no box.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dapo::verify {

/// The answer of a response: its last \boxed{}; else what follows the last "answer is" or "answer:"; else the whole, if
/// it is one short line; else the last formula or number. Nothing if there is none of these. Linear in its length.
std::optional<std::string> find_answer(std::string_view response);

}  // namespace dapo::verify
