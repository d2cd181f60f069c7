// Ground truths as the datasets hand them to the verifiers.
#pragma once

namespace dapo {

/// Stands between the accepted answers of a ground truth, any one of which a response may give.
constexpr char kAnswerSeparator = '\x1f';

}  // namespace dapo
