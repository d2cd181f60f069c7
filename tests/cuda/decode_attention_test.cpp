// A decode step's attention against attention() of the same rows, bit for bit: sequences that share a prefix, splits
// merged by the last block, every form of the kernel, and graphs that are replayed.
#include "cuda/cuda_device.h"
#include "cuda/decode_form.h"
#include "tests/cuda/test_device.h"
#include "tests/ops/cases_attention.h"
#include "tests/ops/device_tensor.h"

namespace dapo::ops {
namespace {

/// A prompt (0: none) and its responses.
struct Prompt {
  int32_t length;
  std::vector<int32_t> responses;
};

std::vector<Segment> segments_of_prompts(const std::vector<Prompt>& prompts) {
  std::vector<Segment> s;
  int32_t begin = 0;
  for (const Prompt& p : prompts) {
    const int32_t prefix = p.length > 0 ? static_cast<int32_t>(s.size()) : -1;
    if (p.length > 0) s.push_back({begin, p.length, -1}), begin += p.length;
    for (const int32_t length : p.responses) s.push_back({begin, length, prefix}), begin += length;
  }
  return s;
}

/// One step for the last token of every response, three times with one key: run, then replayed.
void expect_step_equals_packed(bool two_sms, const std::vector<Prompt>& prompts, AttentionDims d, int page_size) {
  pretend_two_sms(two_sms);
  const auto backend = make_cuda_backend(DType::bf16);
  pretend_two_sms(false);
  Backend& b = *backend;
  const DType t = DType::bf16;
  const std::vector<Segment> s = segments_of_prompts(prompts);
  const OpCase packed = attention_case(t, s, d);
  const auto in = inputs_of(packed);
  const std::vector<std::byte> all = run_case(b, packed, in)[0];

  const Paged g = paged_of(s, page_size);
  const auto ints = [&](const std::vector<int32_t>& v, std::vector<int64_t> shape) {
    return Device1(b, DType::i32, std::move(shape), Values(v.begin(), v.end()));
  };
  const int64_t S = std::ssize(s);
  const Device1 qkv(b, t, {rows_of(s), d.qkv_width()}, in[2]);
  const Device1 cache(b, t, {g.page_count, 2, d.kv_heads, page_size, d.head_dim},
                      Values(g.page_count * 2 * d.kv_width() * page_size, NAN));
  {
    int32_t longest = 0;
    for (const Segment& x : s) longest = std::max(longest, x.length);
    const Device1 begin = ints(g.row_begin, {S + 1}), prefix = ints(g.prefix, {S}), own = ints(g.own, {S});
    const Device1 pages = ints(g.pages, {S, g.max_pages});
    b.rope_kv_write(cache, qkv, {}, {begin, prefix, own, pages, page_size, longest, g.max_length}, d);
    b.synchronize();
  }
  std::vector<int32_t> row_begin{0}, prefix, own, pages, rows;
  for (int64_t i = 0; i < S; ++i) {
    if (std::ranges::any_of(s, [i](const Segment& x) { return x.prefix == i; })) continue;  // a prompt
    rows.push_back(s[i].begin + s[i].length - 1);
    row_begin.push_back(static_cast<int32_t>(rows.size()));
    prefix.push_back(g.prefix[i]), own.push_back(g.own[i]);
    pages.insert(pages.end(), g.pages.begin() + i * g.max_pages, g.pages.begin() + (i + 1) * g.max_pages);
  }
  const int64_t n = std::ssize(rows);
  Values q(n * d.qkv_width());
  for (int64_t r = 0; r < n; ++r) copy_row(q, r, in[2], rows[r], d.qkv_width());
  const Device1 step_qkv(b, t, {n, d.qkv_width()}, q), out(b, t, {n, d.q_width()});
  const Device1 dbegin = ints(row_begin, {n + 1}), dprefix = ints(prefix, {n}), down = ints(own, {n});
  const Device1 dpages = ints(pages, {n, g.max_pages});
  const ScopedWorkspace workspace(b, packed.needs);
  const size_t bytes = d.q_width() * dtype_size(t);
  for (int replay = 0; replay < 3; ++replay) {
    b.zero(out);
    b.replayable(1, [&] {
      b.paged_attention(out, step_qkv, cache, {dbegin, dprefix, down, dpages, page_size, 1, g.max_length}, d);
    });
    const std::vector<std::byte> got = out.bytes();
    for (int64_t r = 0; r < n; ++r)
      ASSERT_EQ(std::memcmp(&got[r * bytes], &all[rows[r] * bytes], bytes), 0)
          << packed.name() << (two_sms ? ", two SMs" : "") << ", page " << page_size << ", replay " << replay
          << ": sequence " << r << " (prefix " << prefix[r] << ", own " << own[r] << ")";
  }
}

/// Groups of 1, 3, 16 and 17 responses; two prompts of one length; sequences without a prompt.
const std::vector<Prompt> kGroups = {{64, {1}},
                                     {130, {1, 70, 5}},
                                     {70, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
                                     {70, {3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 64}},
                                     {0, {65}},
                                     {0, {1}}};
/// Several splits of the prefix and of their own.
const std::vector<Prompt> kSplits = {{520, {5, 530, 64}}, {0, {600}}};
const std::vector<Prompt> kFew = {{70, {3}}};

TEST(DecodeAttention, GroupsThatShareAPrefixKeepTheirBits) {
  for (const bool two_sms : {false, true}) {
    expect_step_equals_packed(two_sms, kGroups, {7, 1, 64}, 64);
    expect_step_equals_packed(two_sms, kGroups, {6, 2, 32}, 128);
    expect_step_equals_packed(two_sms, kGroups, {12, 2, 128}, 64);
  }
}

TEST(DecodeAttention, SplitsAreMergedByTheirLastBlock) {
  for (const bool two_sms : {false, true})
    for (const AttentionDims d : {AttentionDims{4, 2, 32}, {7, 1, 64}, {2, 1, 128}})
      expect_step_equals_packed(two_sms, kSplits, d, 64);
}

TEST(DecodeAttention, MoreQueryHeadsThanARowTileHolds) {
  for (const bool two_sms : {false, true}) expect_step_equals_packed(two_sms, kFew, {20, 1, 64}, 64);
  expect_step_equals_packed(true, kGroups, {20, 1, 32}, 64);
}

TEST(DecodeAttention, AQueryHeadOfItsOwnForEachKeyHead) {
  expect_step_equals_packed(true, kGroups, {2, 2, 32}, 64);
}

/// An H100: 132 SMs of 228 KB. Blocks of D = 64: 148 KB wide, 56 KB deep.
TEST(DecodeAttention, FormByTheNumberOfBlocks) {
  cudaDeviceProp card{};
  card.multiProcessorCount = 132;
  card.sharedMemPerMultiprocessor = 228 << 10;
  card.sharedMemPerBlockOptin = 227 << 10;
  card.reservedSharedMemPerBlock = 1 << 10;
  const auto form = [&](int64_t blocks) { return cuda::decode_form(blocks, 148 << 10, 56 << 10, card); };
  EXPECT_EQ(form(1), cuda::DecodeForm::wide);
  EXPECT_EQ(form(132), cuda::DecodeForm::wide);
  EXPECT_EQ(form(133), cuda::DecodeForm::deep);
  EXPECT_EQ(form(132 * 4), cuda::DecodeForm::deep);
  EXPECT_EQ(form(132 * 4 + 1), cuda::DecodeForm::shallow);
  card.sharedMemPerBlockOptin = 99 << 10;  // sm_89
  EXPECT_EQ(form(1), cuda::DecodeForm::deep);
}

}  // namespace
}  // namespace dapo::ops
