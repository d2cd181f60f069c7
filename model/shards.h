// How data parallelism deals the training state to its ranks (ZeRO-1): every rank holds all weights and gradients, but
// moments and the low halves of the masters only of its shard. A flat buffer is cut into buckets (embedding, each
// layer, the rest), each of which is reduced and gathered by itself, and each bucket into one slice a rank.
#pragma once

#include <cstdint>
#include <vector>

#include "core/comm.h"
#include "model/params.h"

namespace dapo {

/// Elements [begin, begin + count) of a flat buffer, which lie at `local` in the rank's own buffers.
struct ShardSlice {
  int64_t begin, count, local;
};

/// Bytes that a rank sends in an update of so many parameters on `ranks` of them: gradients in f32, then weights in T.
double update_wire_bytes(double parameters, int ranks, DType dtype);

class Shards {
 public:
  /// Cuts are at the ends of rows (of 64 elements in a vector), next to equal parts of a bucket, and where an address of
  /// either type stays aligned to 64 elements; so a shard is a few rectangles, and no parameter needs padding.
  Shards(const ParamTable& params, int ranks);

  int ranks() const { return ranks_; }
  size_t buckets() const { return cuts_.size(); }
  static size_t embedding_bucket() { return 0; }
  static size_t layer_bucket(int layer) { return static_cast<size_t>(layer) + 1; }
  size_t last_bucket() const { return buckets() - 1; }  ///< the final norm, and the head if it is not the embedding
  /// Of one bucket. Slices may be empty; padding between parameters belongs to the slice before it.
  ShardSlice slice(size_t bucket, int rank) const;
  /// All of a rank's slices in ascending order; those that touch are one.
  std::vector<ShardSlice> slices(int rank) const;
  int64_t size(int rank) const;    ///< elements of a rank's shard
  int64_t most() const;            ///< elements of the largest shard
  int64_t most_in_bucket() const;  ///< elements of the largest slice

 private:
  int ranks_;
  std::vector<std::vector<int64_t>> cuts_;  // [bucket][rank], and the bucket's end
};

/// Sums gradients and gathers weights between ranks, bucket by bucket, through pieces of bounded size. Its calls may run
/// beside the ops (Backend::beside).
class ShardExchange {
 public:
  /// Elements of f32 scratch that an exchange takes.
  static int64_t scratch_size(const Shards& shards);
  /// scratch: f32[scratch_size()], free to use inside every call.
  ShardExchange(Backend& backend, Comm& comm, const Shards& shards, const Tensor& scratch)
      : backend_(backend), comm_(comm), shards_(shards), scratch_(scratch) {}

  /// This rank's slice of `flat`, f32, becomes the sum over ranks in rank order. The other slices are then meaningless.
  void reduce(const Tensor& flat, size_t bucket) const;
  /// Every slice of `flat` becomes that of the rank that owns it.
  void gather(const Tensor& flat, size_t bucket) const;

 private:
  template <class Piece>
  void each_piece(size_t bucket, Piece piece) const;

  Backend& backend_;
  Comm& comm_;
  const Shards& shards_;
  const Tensor scratch_;
};

}  // namespace dapo
