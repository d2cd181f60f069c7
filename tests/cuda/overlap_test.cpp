// Work beside the ops on a stream of its own, and the exchange of gradients that runs there: in the simulator between
// ranks that are threads, on a card alone. Under DAPO_SIM_LAZY=1 streams run as late as they may.
#include <gtest/gtest.h>

#include "model/learner.h"
#include "tests/cuda/gpu_ranks.h"
#include "tests/model/rig.h"

namespace dapo {
namespace {

TEST(CudaBeside, WorkComesAfterTheOpsBeforeItAndBeforeThoseAfterJoin) {
  const std::unique_ptr<Backend> backend = rig_backend(DType::f32);
  constexpr int64_t kSize = 1000;
  const OwnedBlock block(*backend, 4 * kSize * sizeof(float));
  const auto row = [&](int64_t i) { return Tensor(block.data(), DType::f32, {4, kSize}).rows(i, 1); };
  const Tensor half(row(3).data, DType::bf16, {1, kSize});
  std::vector<float> values(kSize), got(kSize);
  uint64_t last = 0;
  for (int round = 0; round < 200; ++round) {  // more than there are slots
    for (int64_t i = 0; i < kSize; ++i) values[i] = static_cast<float>((i + round) % 100);
    backend->copy_in(row(0), values.data());
    const uint64_t mark = backend->beside([&] { backend->cast(half, row(0)); });
    EXPECT_GT(mark, last);
    last = backend->beside([&] { backend->cast(row(1), half); });
    backend->zero(row(2));
    backend->join(last);
    backend->copy(row(2), row(1));
    backend->copy_out_now(got.data(), row(2));
    ASSERT_EQ(got, values) << round;
  }
  const Backend::BesideSeconds seconds = backend->beside_seconds();
  EXPECT_GT(seconds.work, 0);
  EXPECT_GE(seconds.waited, 0);
  EXPECT_EQ(backend->beside_seconds().work, seconds.work) << "counted once";
}

/// Weights after an update; rank r has `packs - r` packs in each, or none.
std::vector<float> train(int ranks, DType dtype, bool overlap, int zero_stage) {
  const Pack pack = make_pack({{random_ids(1, 9, 101), {random_ids(2, 7, 101), random_ids(3, 5, 101)}}});
  const Pack other = make_pack({{random_ids(4, 6, 101), {random_ids(5, 8, 101)}}});
  std::vector<std::vector<float>> weights(static_cast<size_t>(ranks));
  run_ranks(ranks, [&](HostComm& host) {
    const std::unique_ptr<Backend> backend = make_cuda_backend(dtype);
    const std::unique_ptr<Comm> nccl = make_nccl_comm(*backend, host);
    SingleComm alone([](void* b, const Tensor& to, const Tensor& from) { static_cast<Backend*>(b)->copy(to, from); },
                     backend.get());
    ModelConfig shapes = model_tests::toy_config();
    shapes.layers = 2;
    Weights model(*backend, alone, shapes);
    model.init(7, 0.15f);
    ModelLimits limits = model_tests::training_limits(pack);
    limits.data_ranks = ranks;
    limits.overlap = overlap;
    limits.zero_stage = zero_stage;
    ModelMemory memory(model, limits, nccl.get());
    Learner learner(memory);
    learner.begin();
    const int packs = std::max(0, 2 - host.rank());
    learner.begin_gradients(static_cast<size_t>(packs), 2);
    for (int i = 0; i < packs; ++i) {
      Pack own = i == 0 ? pack : other;
      learner.train(own, 1.0f, DapoLoss{});
    }
    if (zero_stage == 1) {
      EXPECT_EQ(learner.buckets_left(), packs > 0 && overlap && ranks > 1 ? 0 : learner.shards().buckets());
    }
    learner.end_gradients();
    const Learner::UpdateResult r = learner.update(
        {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f, .step = 1, .max_norm = 1});
    EXPECT_TRUE(r.applied);
    EXPECT_EQ(r.exchange.bytes > 0, ranks > 1);
    EXPECT_EQ(r.exchange.seconds > 0, ranks > 1);
    weights[static_cast<size_t>(host.rank())] = to_host(*backend, model.flat());
  });
  for (const auto& w : weights) EXPECT_EQ(w, weights[0]) << "the ranks have other weights";
  return weights[0];
}

class CudaOverlap : public testing::TestWithParam<int> {};

TEST_P(CudaOverlap, ChangesNoBit) {
  if (const std::string why = no_nccl(); !why.empty()) GTEST_SKIP() << why;
  for (const auto& [stage, dtype] : {std::pair{1, DType::f32}, {1, DType::bf16}, {2, DType::f32}}) {
    if (stage == 2 && GetParam() == 1) continue;  // one rank has all
    EXPECT_EQ(train(GetParam(), dtype, true, stage), train(GetParam(), dtype, false, stage))
        << dtype_name(dtype) << ", ZeRO stage " << stage;
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, CudaOverlap, testing::ValuesIn(gpu_rank_counts()));

}  // namespace
}  // namespace dapo
