// Attention against its definition in double precision, and pages against packs, bit for bit.
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/sizes.h"
#include "cpu/cpu_backend.h"

namespace dapo {
namespace {

template <class T>
T narrow(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return to_bf16(x);
}

/// Memory of a test's tensors, filled with NaN bytes.
template <class T>
struct Buffer {
  std::vector<T> v;
  Tensor t;
  Buffer(std::initializer_list<int64_t> shape) : t(nullptr, dtype_of<T>::value, shape) {
    v.resize(static_cast<size_t>(t.numel()) + 1);  // at least one element, so that there is memory
    std::memset(static_cast<void*>(v.data()), 0xff, v.size() * sizeof(T));
    v.resize(t.numel());  // so that ASan sees an access behind the end
    v.shrink_to_fit();
    t.data = v.data();
  }
  Buffer(std::initializer_list<int64_t> shape, const std::vector<T>& from) : Buffer(shape) {
    std::copy(from.begin(), from.end(), v.begin());
  }
  void random(uint32_t seed, float scale) requires(!std::is_same_v<T, int32_t>) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0.0f, scale);
    for (T& x : v) x = narrow<T>(normal(rng));
  }
};

template <class T>
class AttentionTest : public testing::Test {
 protected:
  void SetUp() override {
    if (dtype_of<T>::value == DType::bf16 && !cpu_has_bf16()) GTEST_SKIP() << "skipped: this CPU has no bf16 products";
    backend_ = make_cpu_backend(dtype_of<T>::value);
  }
  std::unique_ptr<Backend> backend_;
  std::vector<char> memory_;
  std::unique_ptr<Arena> arena_;

  void prepare(const AttentionDims& dims, int64_t tokens) {
    WorkspaceNeeds needs{};
    needs.attention = dims;
    needs.hidden = needs.vocab = 1;
    needs.max_tokens = needs.max_rows = needs.max_length = tokens;
    memory_.resize(backend_->workspace_bytes(needs) + Arena::kAlign);
    void* p = memory_.data();
    size_t room = memory_.size();
    std::align(Arena::kAlign, 1, p, room);
    arena_ = std::make_unique<Arena>("workspace", p, room / Arena::kAlign * Arena::kAlign);
    backend_->set_workspace(arena_.get());
  }
};
using Types = testing::Types<float, bf16>;
TYPED_TEST_SUITE(AttentionTest, Types);

const AttentionDims kShapes[] = {{3, 1, 24}, {4, 2, 32}, {14, 2, 64}, {2, 2, 128}, {5, 5, 8}, {6, 3, 80}};

/// A prompt with three responses, a segment alone, a prompt that no segment uses, a short group.
std::vector<Segment> some_segments() {
  std::vector<Segment> s;
  int32_t at = 0;
  const auto add = [&](int32_t length, int32_t prefix) {
    s.push_back({at, length, prefix});
    at += length;
  };
  add(70, -1), add(65, 0), add(1, 0), add(130, 0), add(33, -1), add(64, -1), add(5, -1), add(20, 6), add(64, 6);
  return s;
}
/// On the host and, on this device in the same memory, as i32[S, 3].
Segments packed(const std::vector<Segment>& s) {
  return {s, Tensor(const_cast<Segment*>(s.data()), DType::i32, {std::ssize(s), 3})};
}
int64_t rows_of(const std::vector<Segment>& s) {
  return s.back().begin + s.back().length;
}

struct Meaning {
  std::vector<double> out, lse, dqkv;
};

/// Forward, and backward from dout, by definition.
template <class T>
Meaning meaning(const std::vector<T>& qkv, const std::vector<T>& dout, const std::vector<Segment>& segments,
                const AttentionDims& dims) {
  const int64_t n = rows_of(segments), ld = dims.qkv_width(), d = dims.head_dim, width = dims.q_width();
  Meaning m{std::vector<double>(n * width), std::vector<double>(n * dims.heads), std::vector<double>(n * ld)};
  const auto at = [&](int64_t row, int64_t column) { return static_cast<size_t>(row * ld + column); };
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  for (const Segment& s : segments)
    for (int64_t i = 0; i < s.length; ++i)
      for (int64_t h = 0; h < dims.heads; ++h) {
        const int64_t row = s.begin + i, q = h * d, k = width + h / (dims.heads / dims.kv_heads) * d,
                      v = k + dims.kv_width();
        std::vector<int64_t> keys;
        if (s.prefix >= 0) {
          const Segment& p = segments[s.prefix];
          for (int64_t j = 0; j < p.length; ++j) keys.push_back(p.begin + j);
        }
        for (int64_t j = 0; j <= i; ++j) keys.push_back(s.begin + j);
        std::vector<double> p(keys.size());
        double max = -HUGE_VAL, sum = 0.0;
        for (size_t j = 0; j < keys.size(); ++j) {
          for (int64_t c = 0; c < d; ++c)
            p[j] += static_cast<double>(to_float(qkv[at(row, q + c)])) * to_float(qkv[at(keys[j], k + c)]) * scale;
          max = std::max(max, p[j]);
        }
        for (double& x : p) sum += x = std::exp(x - max);
        m.lse[row * dims.heads + h] = max + std::log(sum);
        std::vector<double> dp(keys.size());
        double delta = 0.0;
        for (size_t j = 0; j < keys.size(); ++j) {
          p[j] /= sum;
          for (int64_t c = 0; c < d; ++c) {
            const double g = to_float(dout[row * width + q + c]);
            m.out[row * width + q + c] += p[j] * to_float(qkv[at(keys[j], v + c)]);
            m.dqkv[at(keys[j], v + c)] += p[j] * g;
            dp[j] += g * to_float(qkv[at(keys[j], v + c)]);
          }
          delta += p[j] * dp[j];
        }
        for (size_t j = 0; j < keys.size(); ++j)
          for (int64_t c = 0; c < d; ++c) {
            const double ds = p[j] * (dp[j] - delta) * scale;
            m.dqkv[at(row, q + c)] += ds * to_float(qkv[at(keys[j], k + c)]);
            m.dqkv[at(keys[j], k + c)] += ds * to_float(qkv[at(row, q + c)]);
          }
      }
  return m;
}

/// Squared error relative to the squared norm; NaN where anything is NaN.
template <class T>
double nmse(const std::vector<T>& got, const std::vector<double>& want) {
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double e = static_cast<double>(to_float(got[i])) - want[i];
    error += e * e;
    norm += want[i] * want[i];
  }
  return error / norm;
}

// f32: sums of up to 300 terms, each rounded at 2^-24: a relative error below 300 * 6e-8 = 2e-5 in the worst case,
// about 1e-6 for random signs; bf16: results rounded at 2^-9, so 2^-18 / 3 for random errors, and delta has the
// rounding of out.
template <class T>
constexpr double kForward = std::is_same_v<T, float> ? 4e-12 : 4e-6;
template <class T>
constexpr double kBackward = std::is_same_v<T, float> ? 4e-12 : 2e-5;

TYPED_TEST(AttentionTest, EqualsItsDefinition) {
  const std::vector<Segment> segments = some_segments();
  const int64_t n = rows_of(segments);
  for (const AttentionDims& dims : kShapes) {
    SCOPED_TRACE(fmt::format("H {} K {} D {}", dims.heads, dims.kv_heads, dims.head_dim));
    this->prepare(dims, n);
    Buffer<TypeParam> qkv({n, dims.qkv_width()}), dqkv({n, dims.qkv_width()}), out({n, dims.q_width()}),
        dout({n, dims.q_width()});
    Buffer<float> lse({n, dims.heads});
    qkv.random(1, 1.5f), dout.random(2, 1.0f);
    this->backend_->attention(out.t, lse.t, qkv.t, packed(segments), dims);
    this->backend_->attention_backward(dqkv.t, dout.t, qkv.t, out.t, lse.t, packed(segments), dims);
    const Meaning want = meaning(qkv.v, dout.v, segments, dims);
    EXPECT_LT(nmse(out.v, want.out), kForward<TypeParam>);
    EXPECT_LT(nmse(lse.v, want.lse), 4e-12);
    EXPECT_LT(nmse(dqkv.v, want.dqkv), kBackward<TypeParam>);
    EXPECT_EQ(this->arena_->used(), 0u);
  }
}

TYPED_TEST(AttentionTest, DoesNotDependOnThreads) {
  const std::vector<Segment> segments = some_segments();
  const int64_t n = rows_of(segments);
  const AttentionDims dims{14, 2, 64};
  const int threads = omp_get_max_threads();
  Buffer<TypeParam> qkv({n, dims.qkv_width()}), dout({n, dims.q_width()});
  qkv.random(3, 1.0f), dout.random(4, 1.0f);
  std::vector<TypeParam> first;
  for (const int t : {1, 2, 3}) {
    omp_set_num_threads(t);
    this->prepare(dims, n);
    Buffer<TypeParam> dqkv({n, dims.qkv_width()}), out({n, dims.q_width()});
    Buffer<float> lse({n, dims.heads});
    this->backend_->attention(out.t, lse.t, qkv.t, packed(segments), dims);
    this->backend_->attention_backward(dqkv.t, dout.t, qkv.t, out.t, lse.t, packed(segments), dims);
    if (t == 1) first = dqkv.v;
    EXPECT_EQ(std::memcmp(first.data(), dqkv.v.data(), dqkv.t.bytes()), 0) << t << " threads";
  }
  omp_set_num_threads(threads);
}

/// A group in pages: the prompt's rows as a sequence without prefix, then the responses, fed in pieces.
template <class T>
struct Pages {
  Backend& backend;
  AttentionDims dims;
  const std::vector<Segment>& segments;
  const Buffer<T>& qkv;
  int page_size;
  Buffer<T> cache;
  std::vector<std::vector<int32_t>> pages;  // of each segment
  Buffer<T> out;

  static int64_t count_pages(const std::vector<Segment>& segments, int page_size) {
    int64_t n = 1;
    for (const Segment& s : segments) n += ceil_div(s.length, page_size);
    return n;
  }
  Pages(Backend& b, const AttentionDims& a, const std::vector<Segment>& s, const Buffer<T>& rows, int size)
      : backend(b),
        dims(a),
        segments(s),
        qkv(rows),
        page_size(size),
        cache({count_pages(s, size), 2, a.kv_heads, size, a.head_dim}),
        out({rows.t.dim(0), a.q_width()}) {
    int32_t next = cache.t.dim(0);  // pages from the last one down, so that none has its segment's position
    for (const Segment& segment : s) {
      pages.emplace_back();
      for (int32_t i = 0; i < segment.length; i += size) pages.back().push_back(--next);
    }
  }

  struct Piece {
    size_t segment;
    int32_t first, rows;
  };
  void feed(const std::vector<Piece>& batch) {
    const int64_t count = std::ssize(batch);
    std::vector<int32_t> begin{0}, prefix, own, table(static_cast<size_t>(count * cache.t.dim(0)), -1);
    std::vector<int64_t> rows;
    for (size_t b = 0; b < batch.size(); ++b) {
      const Segment& s = segments[batch[b].segment];
      std::vector<int32_t> p;
      prefix.push_back(s.prefix < 0 ? 0 : segments[s.prefix].length);
      if (s.prefix >= 0) p = pages[s.prefix];
      p.insert(p.end(), pages[batch[b].segment].begin(), pages[batch[b].segment].end());
      std::copy(p.begin(), p.end(), table.begin() + static_cast<int64_t>(b) * cache.t.dim(0));
      own.push_back(batch[b].first + batch[b].rows);
      begin.push_back(begin.back() + batch[b].rows);
      for (int32_t i = 0; i < batch[b].rows; ++i) rows.push_back(s.begin + batch[b].first + i);
    }
    const int64_t n = begin.back(), width = dims.qkv_width(), q_width = dims.q_width();
    Buffer<T> in({n, width}), to({n, q_width});
    for (int64_t i = 0; i < n; ++i) std::copy_n(qkv.v.begin() + rows[i] * width, width, in.v.begin() + i * width);
    const Buffer<int32_t> b({count + 1}, begin), p({count}, prefix), o({count}, own), t({count, cache.t.dim(0)}, table);
    const PagedSequences seqs{b.t, p.t, o.t, t.t, page_size, static_cast<int>(n), 4096};
    backend.rope_kv_write(cache.t, in.t, {}, seqs, dims);
    backend.paged_attention(to.t, in.t, cache.t, seqs, dims);
    for (int64_t i = 0; i < n; ++i) std::copy_n(to.v.begin() + i * q_width, q_width, out.v.begin() + rows[i] * q_width);
  }

  /// Prompts first, then their responses; each segment in pieces of `chunk` rows, `together` segments a batch.
  void feed_all(int32_t chunk, size_t together) {
    for (const bool responses : {false, true}) {
      std::vector<size_t> todo;
      for (size_t s = 0; s < segments.size(); ++s)
        if ((segments[s].prefix >= 0) == responses) todo.push_back(s);
      for (size_t from = 0; from < todo.size(); from += together)
        for (int32_t first = 0;; first += chunk) {
          std::vector<Piece> batch;
          for (size_t i = from; i < std::min(from + together, todo.size()); ++i)
            if (segments[todo[i]].length > first)
              batch.push_back({todo[i], first, std::min(chunk, segments[todo[i]].length - first)});
          if (batch.empty()) break;
          feed(batch);
        }
    }
  }
};

TYPED_TEST(AttentionTest, PagesGiveTheBitsOfThePack) {
  const std::vector<Segment> segments = some_segments();
  const int64_t n = rows_of(segments);
  for (const AttentionDims& dims : kShapes) {
    this->prepare(dims, n);
    Buffer<TypeParam> qkv({n, dims.qkv_width()}), out({n, dims.q_width()});
    Buffer<float> lse({n, dims.heads});
    qkv.random(5, 1.5f);
    this->backend_->attention(out.t, lse.t, qkv.t, packed(segments), dims);
    for (const int page_size : {64, 128, 256})
      for (const auto& [chunk, together] : {std::pair<int32_t, size_t>{1000, 9}, {1, 9}, {17, 2}, {64, 1}}) {
        if (page_size != 64 && (chunk < 17 || dims.head_dim > 32)) continue;
        Pages<TypeParam> pages(*this->backend_, dims, segments, qkv, page_size);
        pages.feed_all(chunk, together);
        int64_t wrong = 0;
        for (size_t i = 0; i < out.v.size(); ++i)
          wrong += std::memcmp(&out.v[i], &pages.out.v[i], sizeof(TypeParam)) != 0;
        EXPECT_EQ(wrong, 0) << "H " << dims.heads << " K " << dims.kv_heads << " D " << dims.head_dim << ", pages of "
                            << page_size << ", pieces of " << chunk << ", " << together << " together";
      }
  }
}

TYPED_TEST(AttentionTest, APrefixIsACopyOfThePrompt) {
  const AttentionDims dims{4, 2, 32};
  const int32_t prompt = 70, length = 40;
  const std::vector<Segment> shared{{0, prompt, -1}, {prompt, length, 0}, {prompt + length, length, 0}};
  const std::vector<Segment> copies{{0, prompt + length, -1}, {prompt + length, prompt + length, -1}};
  const int64_t n = rows_of(shared), m = rows_of(copies), width = dims.qkv_width(), q_width = dims.q_width();
  this->prepare(dims, m);
  Buffer<TypeParam> qkv({n, width}), dout({n, q_width}), out({n, q_width}), dqkv({n, width});
  Buffer<TypeParam> qkv2({m, width}), dout2({m, q_width}), out2({m, q_width}), dqkv2({m, width});
  Buffer<float> lse({n, dims.heads}), lse2({m, dims.heads});
  qkv.random(6, 1.0f), dout.random(7, 1.0f);
  std::fill_n(dout.v.begin(), prompt * q_width, TypeParam{});  // the loss is on responses
  const auto source = [&](int64_t row) {
    const int64_t copy = row / (prompt + length), i = row % (prompt + length);
    return i < prompt ? i : i + copy * length;
  };
  for (int64_t r = 0; r < m; ++r) {
    std::copy_n(qkv.v.begin() + source(r) * width, width, qkv2.v.begin() + r * width);
    std::copy_n(dout.v.begin() + source(r) * q_width, q_width, dout2.v.begin() + r * q_width);
  }
  this->backend_->attention(out.t, lse.t, qkv.t, packed(shared), dims);
  this->backend_->attention_backward(dqkv.t, dout.t, qkv.t, out.t, lse.t, packed(shared), dims);
  this->backend_->attention(out2.t, lse2.t, qkv2.t, packed(copies), dims);
  this->backend_->attention_backward(dqkv2.t, dout2.t, qkv2.t, out2.t, lse2.t, packed(copies), dims);
  std::vector<double> out_want(out.v.size()), sum(dqkv.v.size());
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < q_width; ++c) out_want[source(r) * q_width + c] = to_float(out2.v[r * q_width + c]);
    for (int64_t c = 0; c < width; ++c) sum[source(r) * width + c] += to_float(dqkv2.v[r * width + c]);
  }
  EXPECT_LT(nmse(out.v, out_want), 2 * kForward<TypeParam>);
  EXPECT_LT(nmse(dqkv.v, sum), 2 * kBackward<TypeParam>);
}

TYPED_TEST(AttentionTest, RefusesBrokenInput) {
  const AttentionDims dims{2, 1, 16};
  this->prepare(dims, 64);
  Buffer<TypeParam> qkv({10, dims.qkv_width()}), out({10, dims.q_width()});
  Buffer<float> lse({10, dims.heads});
  qkv.random(8, 1.0f);
  for (const std::vector<Segment>& bad : std::vector<std::vector<Segment>>{
           {{0, 9, -1}}, {{0, 5, -1}, {6, 4, -1}}, {{0, 5, 1}, {5, 5, -1}}, {{0, 2, -1}, {2, 3, 0}, {5, 5, 1}}})
    EXPECT_THROW(this->backend_->attention(out.t, lse.t, qkv.t, packed(bad), dims), Error);
  Buffer<TypeParam> cache({2, 2, 1, 64, 16});
  const Buffer<int32_t> begin({2}, {0, 10}), prefix({1}, {0}), own({1}, {10}), short_own({1}, {9}), pages({1, 1}, {1}),
      absent({1, 1}, {2});
  for (const PagedSequences& bad : {PagedSequences{begin.t, prefix.t, short_own.t, pages.t, 64, 10, 64},
                                    PagedSequences{begin.t, prefix.t, own.t, absent.t, 64, 10, 64}})
    EXPECT_THROW(this->backend_->rope_kv_write(cache.t, qkv.t, {}, bad, dims), Error);
}

}  // namespace
}  // namespace dapo
