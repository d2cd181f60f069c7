// The vocabulary split over ranks changes no log-prob and no draw.
#include "tests/ops/split_head.h"

#include "cpu/cpu_backend.h"
#include "tests/thread_comm.h"

namespace dapo::ops {
namespace {

TEST(SplitHead, LikeOneRankWithAllOfIt) {
  std::vector<DType> types = {DType::f32};
  if (cpu_has_bf16()) types.push_back(DType::bf16);
  for (const SplitHeadCase& c : split_head_cases(types))
    for (const int ranks : {2, 3})
      expect_split_head_like_whole(*make_cpu_backend(c.type), c, ranks,
                                   [&](int size, const std::function<void(Backend&, Comm&)>& rank) {
                                     run_ranks(size, [&](Comm& comm) { rank(*make_cpu_backend(c.type), comm); });
                                   });
}

}  // namespace
}  // namespace dapo::ops
