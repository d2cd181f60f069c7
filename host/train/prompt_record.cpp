#include "host/train/prompt_record.h"

#include <cstdlib>

#include "core/philox.h"

namespace dapo {

void add_visit(PromptRecord& record, int right, int judged) {
  ++record.visits;
  record.right += right;
  record.judged += judged;
  const int sign = right == judged ? 1 : right == 0 ? -1 : 0;
  record.streak = sign * record.streak > 0 ? record.streak + sign : sign;
}

bool passes_over(const PromptRecord& record, int patience, uint64_t seed, uint64_t epoch, int32_t example) {
  constexpr uint32_t kSkipDraws = 0x736b6970u;  // "skip": keeps these draws apart from all others of the same seed
  constexpr float kVisited = 0.25f;
  if (patience == 0 || std::abs(record.streak) < patience) return false;
  const Philox4 x = philox(seed, {{uint32_t(epoch), uint32_t(epoch >> 32), uint32_t(example), kSkipDraws}});
  return uniform(x.x[0]) >= kVisited;
}

}  // namespace dapo
