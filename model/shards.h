// How data parallelism deals the training state to its ranks (ZeRO): every rank holds all weights, but moments and the low
// halves of the masters only of its shard, and the sums of gradients too in stage 2 (model/gradients.h). A flat buffer is
// cut into buckets (embedding, each layer, the rest), each of which is reduced and gathered by itself, and each bucket
// into one slice a rank.
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

/// Bytes that a rank sends in an update of so many parameters on `ranks` of them: gradients, once or (stage 2) for every
/// pack, then weights.
double update_wire_bytes(double parameters, int ranks, DType weights, DType gradients = DType::f32, double sums = 1);

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
  /// The elements of a bucket, and the bucket of an element.
  Range bucket(size_t index) const { return {cuts_[index].front(), cuts_[index].back()}; }
  size_t bucket_of(int64_t element) const;
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
  /// scratch: f32[scratch_size()], free to use inside every call. wire: type in which gradients travel; bf16 rounds what
  /// each rank adds to a sum, not the sum.
  ShardExchange(Backend& backend, Comm& comm, const Shards& shards, const Tensor& scratch, DType wire = DType::f32)
      : backend_(backend), comm_(comm), shards_(shards), scratch_(scratch), wire_(wire) {}

  /// own, f32, of this rank's slice of the bucket: the sum over ranks, in rank order, of values, f32 of the whole bucket;
  /// or that is added to it. It may be the slice of `values`.
  void reduce(const Tensor& own, const Tensor& values, size_t bucket, bool add) const;
  /// Every slice of `flat` becomes that of the rank that owns it.
  void gather(const Tensor& flat, size_t bucket) const;

 private:
  template <class Piece>
  void each_piece(size_t bucket, Piece piece) const;

  Backend& backend_;
  Comm& comm_;
  const Shards& shards_;
  const Tensor scratch_;
  const DType wire_ = DType::f32;
};

}  // namespace dapo
