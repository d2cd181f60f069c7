#include "model/shards.h"

#include <algorithm>
#include <numeric>

#include "core/sizes.h"

namespace dapo {
namespace {

/// Elements of all pieces of one call together, so that scratch is 16 MB a copy however large the model is.
constexpr int64_t kPieceElements = 4 << 20;

/// The end of the row that holds element `target` of a flat buffer, or `target` itself between two rows.
int64_t cut_near(const ParamTable& params, int64_t target) {
  const auto after = std::ranges::upper_bound(params.all, target, {}, &Param::offset);
  if (after == params.all.begin()) return 0;
  const Param& p = *(after - 1);
  const int64_t next = p.offset + round_up(p.numel(), kParamAlign),
                unit = p.matrix ? std::lcm(p.columns, kParamAlign) : kParamAlign;
  return std::min(next, p.offset + round_up(target - p.offset, unit));
}

}  // namespace

double update_wire_bytes(double parameters, int ranks, DType weights, DType gradients, double sums) {
  const double bytes = sums * static_cast<double>(dtype_size(gradients)) + static_cast<double>(dtype_size(weights));
  return parameters * bytes * (ranks - 1) / ranks;
}

Shards::Shards(const ParamTable& params, int ranks) : ranks_(ranks) {
  CHECK_GE(ranks, 1);
  std::vector<int64_t> begins = {0};
  for (const LayerParams& l : params.layers) begins.push_back(params.at(l.norm1).offset);
  begins.push_back(params.at(params.norm).offset);
  begins.push_back(params.size);
  for (size_t b = 0; b + 1 < begins.size(); ++b) {
    const int64_t begin = begins[b], size = begins[b + 1] - begin;
    CHECK_GE(size, 0, "bucket {}", b);
    std::vector<int64_t> cuts;
    for (int64_t r = 0; r <= ranks; ++r)
      cuts.push_back(r == 0 ? begin : std::min(begins[b + 1], cut_near(params, begin + size * r / ranks)));
    cuts.back() = begins[b + 1];
    cuts_.push_back(std::move(cuts));
  }
}

ShardSlice Shards::slice(size_t bucket, int rank) const {
  int64_t local = 0;
  for (size_t b = 0; b < bucket; ++b) local += cuts_[b][rank + 1] - cuts_[b][rank];
  return {cuts_[bucket][rank], cuts_[bucket][rank + 1] - cuts_[bucket][rank], local};
}

size_t Shards::bucket_of(int64_t element) const {
  size_t b = 0;
  while (element >= cuts_[b].back()) ++b;
  return b;
}

std::vector<ShardSlice> Shards::slices(int rank) const {
  std::vector<ShardSlice> out;
  for (size_t b = 0; b < buckets(); ++b) {
    const ShardSlice s = slice(b, rank);
    if (s.count == 0) continue;
    if (!out.empty() && out.back().begin + out.back().count == s.begin)
      out.back().count += s.count;
    else
      out.push_back(s);
  }
  return out;
}

int64_t Shards::size(int rank) const {
  const ShardSlice last = slice(buckets() - 1, rank);
  return last.local + last.count;
}

int64_t Shards::most() const {
  int64_t most = 0;
  for (int r = 0; r < ranks_; ++r) most = std::max(most, size(r));
  return most;
}

int64_t Shards::most_in_bucket() const {
  int64_t most = 0;
  for (size_t b = 0; b < buckets(); ++b)
    for (int r = 0; r < ranks_; ++r) most = std::max(most, slice(b, r).count);
  return most;
}

namespace {
int64_t piece_size(const Shards& shards) {
  return std::min(round_up(shards.most_in_bucket(), kParamAlign),
                  round_up(ceil_div(kPieceElements, shards.ranks()), kParamAlign));
}
}  // namespace

int64_t ShardExchange::scratch_size(const Shards& shards) {
  return shards.ranks() == 1 ? 0 : 2 * shards.ranks() * piece_size(shards);
}

/// Calls piece(size, counts, begins): the next `counts[r]` <= size elements of each rank's slice, from begins[r] on.
template <class Piece>
void ShardExchange::each_piece(size_t bucket, Piece piece) const {
  const int ranks = shards_.ranks();
  std::vector<ShardSlice> left;
  int64_t most = 0;
  for (int r = 0; r < ranks; ++r) left.push_back(shards_.slice(bucket, r)), most = std::max(most, left[r].count);
  const int64_t step = piece_size(shards_);
  for (int64_t at = 0; at < most; at += step) {
    const int64_t size = std::min(step, most - at);
    std::vector<ShardSlice> now;
    for (ShardSlice& s : left) {
      now.push_back({s.begin, std::min(size, s.count), 0});
      s.begin += now.back().count;
      s.count -= now.back().count;
    }
    piece(size, now);
  }
}

void ShardExchange::reduce(const Tensor& own, const Tensor& values, size_t bucket, bool add) const {
  const int ranks = shards_.ranks(), me = comm_.rank();
  const int64_t first = shards_.bucket(bucket).begin;
  int64_t done = 0;
  each_piece(bucket, [&](int64_t size, const std::vector<ShardSlice>& slices) {
    const Tensor lower = scratch_.rows(0, ranks * size), upper = scratch_.rows(ranks * size, ranks * size);
    const Tensor in(lower.data, wire_, {ranks * size}), parts(upper.data, wire_, {ranks * size});
    for (int r = 0; r < ranks; ++r)
      if (slices[r].count > 0)
        backend_.cast(in.rows(r * size, slices[r].count), values.rows(slices[r].begin - first, slices[r].count));
    comm_.all_to_all(parts, in);
    const int64_t count = slices[me].count;
    if (count == 0) return;
    const Tensor before = lower.rows(0, size), sum = lower.rows(size, size), to = own.rows(done, count);
    done += count;
    backend_.add_parts(sum.view({1, size}), parts.view({ranks, 1, size}));
    if (!add) return backend_.copy(to, sum.rows(0, count));
    backend_.copy(before.rows(0, count), to);
    backend_.add_parts(before.view({1, size}), lower.rows(0, 2 * size).view({2, 1, size}));
    backend_.copy(to, before.rows(0, count));
  });
}

void ShardExchange::gather(const Tensor& flat, size_t bucket) const {
  const int ranks = shards_.ranks(), own = comm_.rank();
  each_piece(bucket, [&](int64_t size, const std::vector<ShardSlice>& slices) {
    const Tensor scratch(scratch_.data, flat.dtype, {(ranks + 1) * size});
    const Tensor out = scratch.rows(0, ranks * size), in = scratch.rows(ranks * size, size);
    if (slices[own].count > 0)
      backend_.copy(in.rows(0, slices[own].count), flat.rows(slices[own].begin, slices[own].count));
    comm_.all_gather(out.view({ranks, size}), in);
    for (int r = 0; r < ranks; ++r)
      if (r != own && slices[r].count > 0)
        backend_.copy(flat.rows(slices[r].begin, slices[r].count), out.rows(r * size, slices[r].count));
  });
}

}  // namespace dapo
