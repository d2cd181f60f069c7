// Sequences of a group read their shared prefix together: fewer rows of shared memory are read than with copies of it.
#include "cuda/cuda_device.h"
#include "sim/cuda_runtime.h"
#include "sim/sim.h"
#include "tests/cuda/test_device.h"
#include "tests/ops/cases_attention.h"
#include "tests/ops/device_tensor.h"

namespace dapo::ops {
namespace {

/// Reads by ldmatrix of a decode step of four sequences, 512 tokens of prefix and 1 of their own.
long reads(bool share) {
  constexpr int32_t kPage = 64, kPrefixPages = 8, kSequences = 4, kPages = kSequences * (kPrefixPages + 1);
  const AttentionDims d{7, 1, 64};
  const DType t = DType::bf16;
  pretend_two_sms(true);
  const auto backend = make_cuda_backend(t);
  pretend_two_sms(false);
  Backend& b = *backend;
  Values pages;
  for (int s = 0; s < kSequences; ++s) {
    for (int p = 0; p < kPrefixPages; ++p) pages.push_back((share ? 0 : s * kPrefixPages) + p);
    pages.push_back(kSequences * kPrefixPages + s);
  }
  const Device1 qkv(b, t, {kSequences, d.qkv_width()}, random_values(kSequences * d.qkv_width(), t));
  const Device1 out(b, t, {kSequences, d.q_width()}), cache(b, t, {kPages, 2, 1, kPage, d.head_dim});
  const Device1 begin(b, DType::i32, {kSequences + 1}, {0, 1, 2, 3, 4}), own(b, DType::i32, {kSequences}, {1, 1, 1, 1});
  const Device1 prefix(b, DType::i32, {kSequences}, Values(kSequences, kPrefixPages * kPage));
  const Device1 table(b, DType::i32, {kSequences, kPrefixPages + 1}, pages);
  WorkspaceNeeds needs = least_needs();
  needs.attention = d, needs.hidden = d.q_width();
  needs.max_batch = needs.max_rows = kSequences, needs.max_length = kPrefixPages * kPage + 1;
  const ScopedWorkspace workspace(b, needs);
  sim::reset_stats();
  b.paged_attention(out, qkv, cache, {begin, prefix, own, table, kPage, 1, kPrefixPages * kPage + 1}, d);
  b.synchronize();
  return sim::stats().ldmatrix_phases;
}

TEST(DecodeSharing, APrefixOfFourSequencesIsReadOnce) {
  // Of the values of a tile once instead of four times; of the keys once for each of two row tiles.
  EXPECT_LT(reads(true), 0.5 * reads(false));
}

}  // namespace
}  // namespace dapo::ops
