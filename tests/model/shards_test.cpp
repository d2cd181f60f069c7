// How the training state is dealt to ranks, and what an exchange between them leaves.
#include "model/shards.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "tests/model/rig.h"
#include "tests/thread_comm.h"

namespace dapo {
namespace {

ModelConfig odd_shapes() {
  ModelConfig c = toy_config();  // 48 columns: a row end is not always an aligned address
  c.tied = false;
  return c;
}

TEST(Shards, EveryElementBelongsToOneRank) {
  const ParamTable params = parameter_table(odd_shapes());
  for (const int ranks : {1, 2, 3, 4, 7, 64, 1000}) {
    const Shards shards(params, ranks);
    std::vector<int> owners(params.size, 0);
    int64_t most = 0;
    for (int r = 0; r < ranks; ++r) {
      int64_t local = 0;
      for (const ShardSlice& s : shards.slices(r)) {
        EXPECT_EQ(s.local, local);
        EXPECT_GT(s.count, 0);
        local += s.count;
        for (int64_t i = s.begin; i < s.begin + s.count; ++i) ++owners[i];
      }
      EXPECT_EQ(local, shards.size(r));
      most = std::max(most, local);
    }
    EXPECT_EQ(most, shards.most());
    for (int64_t i = 0; i < params.size; ++i) ASSERT_EQ(owners[i], 1) << i << " of " << ranks << " ranks";
  }
}

TEST(Shards, CutsAreAlignedRowEnds) {
  const ParamTable params = parameter_table(odd_shapes());
  for (const int ranks : {2, 3, 5}) {
    const Shards shards(params, ranks);
    for (int r = 0; r < ranks; ++r)
      for (const ShardSlice& s : shards.slices(r)) {
        EXPECT_EQ(s.begin % 64, 0);
        EXPECT_EQ(s.local % 64, 0);
        for (const Param& p : params.all)
          for (const ParamPart& part : p.parts) rows_within(p, part, s.begin, s.begin + s.count);  // CHECKs
      }
    // A bucket's slices are even up to a cut's granularity: 4 rows of 48 columns, or padding.
    for (size_t b = 0; b < shards.buckets(); ++b) {
      const int64_t size =
          shards.slice(b, ranks - 1).begin + shards.slice(b, ranks - 1).count - shards.slice(b, 0).begin;
      for (int r = 0; r < ranks; ++r) EXPECT_NEAR(shards.slice(b, r).count, size / ranks, std::lcm(80, 64) + 64);
    }
  }
}

TEST(Shards, OneRankHoldsAllInOnePiece) {
  const ParamTable params = parameter_table(odd_shapes());
  const Shards shards(params, 1);
  ASSERT_EQ(shards.slices(0).size(), 1u);
  EXPECT_EQ(shards.slices(0)[0].count, params.size);
  EXPECT_EQ(ShardExchange::scratch_size(shards), 0);
}

TEST(Shards, APlanCountsOneRanksShare) {
  const ModelConfig c = odd_shapes();
  const ParamTable params = parameter_table(c);
  const std::unique_ptr<Backend> backend = rig_backend(DType::f32);
  ModelLimits limits;
  limits.max_length = limits.pack_tokens = limits.pack_segments = limits.pack_head_rows = 64;
  limits.train = true;
  for (const int ranks : {1, 2, 3, 8}) {
    limits.data_ranks = ranks;
    const MemoryPlan plan = plan_memory(*backend, c, limits);
    std::map<std::string, int64_t> bytes;
    for (const MemoryPlan::Piece& p : plan.pieces)
      if (p.arena == "state") bytes[p.what] = static_cast<int64_t>(p.bytes);
    const int64_t all = 4 * params.size, cuts = 4 * (std::lcm(80, 64) + 64) * (c.layers + 2);
    EXPECT_EQ(static_cast<int64_t>(plan.bytes_of("gradients")), all);
    for (const char* moment : {"first moments", "second moments"})
      EXPECT_NEAR(bytes[moment], all / ranks, ranks == 1 ? 0 : cuts) << moment << " of " << ranks << " ranks";
    EXPECT_EQ(plan.bytes_of("exchange between ranks") > 0, ranks > 1);
  }
}

TEST(Shards, AnExchangeSumsInRankOrderAndGathersInPlace) {
  const ParamTable params = parameter_table(odd_shapes());
  for (const int ranks : {2, 3, 5})
    run_ranks(ranks, [&](Comm& comm) {
      const std::unique_ptr<Backend> backend = rig_backend(DType::f32);
      const Shards shards(params, ranks);
      std::vector<float> gradients(params.size), want(params.size), scratch(ShardExchange::scratch_size(shards));
      // 2^24 + 1 - 2^24: the sum depends on the order
      const auto value = [ranks](int rank, int64_t i) {
        return rank == 0 ? 16777216.0f : rank == ranks - 1 ? -16777216.0f + static_cast<float>(i % 7) : 1.0f;
      };
      for (int64_t i = 0; i < params.size; ++i) {
        gradients[i] = value(comm.rank(), i);
        float sum = value(0, i);
        for (int r = 1; r < ranks; ++r) sum += value(r, i);
        want[i] = sum;
      }
      const Tensor flat = Tensor::of(std::span(gradients));
      const ShardExchange exchange(*backend, comm, shards, Tensor::of(std::span(scratch)));
      for (size_t b = 0; b < shards.buckets(); ++b) {
        const ShardSlice s = shards.slice(b, comm.rank());
        const Range all = shards.bucket(b);
        exchange.reduce(flat.rows(s.begin, s.count), flat.rows(all.begin, all.count()), b, false);
      }
      for (const ShardSlice& s : shards.slices(comm.rank()))
        for (int64_t i = s.begin; i < s.begin + s.count; ++i) ASSERT_EQ(gradients[i], want[i]) << i;
      for (size_t b = 0; b < shards.buckets(); ++b) exchange.gather(flat, b);
      EXPECT_EQ(gradients, want);
      // bf16 weights are gathered through the same scratch
      std::vector<bf16> weights(params.size);
      for (const ShardSlice& s : shards.slices(comm.rank()))
        for (int64_t i = s.begin; i < s.begin + s.count; ++i) weights[i] = to_bf16(static_cast<float>(i % 251));
      const Tensor half(weights.data(), DType::bf16, {params.size});
      for (size_t b = 0; b < shards.buckets(); ++b) exchange.gather(half, b);
      for (int64_t i = 0; i < params.size; ++i) ASSERT_EQ(to_float(weights[i]), static_cast<float>(i % 251)) << i;
    });
}

/// own + (x0 + x1 + ...), where every x has been rounded to the type in which it travels.
TEST(Shards, SumsAreAddedToAndMayTravelInBf16) {
  const ParamTable params = parameter_table(odd_shapes());
  for (const DType wire : {DType::f32, DType::bf16})
    for (const int ranks : {2, 3, 5})
      run_ranks(ranks, [&](Comm& comm) {
        const std::unique_ptr<Backend> backend = rig_backend(DType::f32);
        const Shards shards(params, ranks);
        const auto value = [](int rank, int64_t i) {
          return uniform(philox(3, {{static_cast<uint32_t>(rank), static_cast<uint32_t>(i), 0, 0}}).x[0]) - 0.5f;
        };
        const auto sent = [&](int rank, int64_t i) {
          return wire == DType::f32 ? value(rank, i) : to_float(to_bf16(value(rank, i)));
        };
        std::vector<float> own(shards.size(comm.rank()), 0.25f), scratch(ShardExchange::scratch_size(shards));
        const ShardExchange exchange(*backend, comm, shards, Tensor::of(std::span(scratch)), wire);
        for (size_t b = 0; b < shards.buckets(); ++b) {
          const ShardSlice s = shards.slice(b, comm.rank());
          const Range all = shards.bucket(b);
          std::vector<float> values;
          for (int64_t i = all.begin; i < all.end; ++i) values.push_back(value(comm.rank(), i));
          const uint64_t before = comm.sent();
          exchange.reduce(Tensor::of(std::span(own)).rows(s.local, s.count), Tensor::of(std::span(values)), b, true);
          int64_t longest = 0;
          for (int r = 0; r < ranks; ++r) longest = std::max(longest, shards.slice(b, r).count);
          EXPECT_EQ(comm.sent() - before, (ranks - 1) * longest * dtype_size(wire));
          for (int64_t i = 0; i < s.count; ++i) {
            float sum = sent(0, s.begin + i);
            for (int r = 1; r < ranks; ++r) sum += sent(r, s.begin + i);
            ASSERT_EQ(own[s.local + i], 0.25f + sum) << i;
          }
        }
      });
}

}  // namespace
}  // namespace dapo
