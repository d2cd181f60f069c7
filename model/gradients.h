// The gradients of a rank, from the packs that add to them to their sum over the data-parallel ranks. The sum of a bucket
// (model/shards.h) may begin as soon as a backward has left it, and then runs beside what is left of that.
#pragma once

#include <array>

#include "model/model_memory.h"

namespace dapo {

/// ZeRO stage 1 keeps all gradients, adds those of all packs, and sums over the ranks once a mini-batch. Stage 2 keeps a
/// rank's slices: each pack's gradients pass through buffers of a few buckets, are summed over the ranks, and added to
/// the slices. A rank with fewer packs than others then takes part with zeros.
class Gradients {
 public:
  explicit Gradients(ModelMemory& memory);
  void lie_in(const GradientBuffers& buffers) { buffers_ = buffers; }
  /// f32, flat: of all parameters in table order, or in stage 2 of this rank's slices.
  Tensor flat() const { return sharded() ? buffers_.own : buffers_.all; }
  /// Of parameter `index`: [rows, columns], or [rows]. In stage 2 while a pack's backward is in its bucket.
  Tensor of(int index) const;
  /// Of a slice of this rank, after end(): the sums over the ranks.
  Tensor sums(const ShardSlice& slice) const {
    return sharded() ? buffers_.own.rows(slice.local, slice.count) : buffers_.all.rows(slice.begin, slice.count);
  }
  void zero();
  /// They are zero already.
  void are_zero();

  /// A mini-batch begins, of which this rank has so many packs, and a rank with the most of them `most`.
  void begin(size_t packs, size_t most);
  /// The backward of a pack begins. In stage 2 it begins with the last bucket, and with the embedding's if that is the head.
  void pack_begins();
  /// It comes to this bucket.
  void bucket_begins(size_t bucket);
  /// It has left this bucket. The last bucket comes first, as the passes run.
  void bucket_done(size_t bucket);
  /// Sums what has not been summed, and waits for it: this rank's slices are then the sums over the ranks, in their order.
  /// Every rank calls it, also one that had no pack, or failed in one: all then have made the same collectives.
  void end();
  /// Buckets whose sum has not begun, of the mini-batch, or in stage 2 of the pack under way.
  size_t left() const { return left_; }
  /// Bytes that this rank has sent in the sums since begin().
  uint64_t sent() const { return sent_; }

 private:
  bool sharded() const { return memory_.limits().shards_gradients(); }
  Tensor bucket_values(size_t bucket) const;
  size_t slot(size_t bucket) const;
  void clear(size_t bucket);
  void sum_next();
  void sum_copies(size_t bucket);
  void wait(uint64_t mark);
  Comm* ranks() const { return memory_.limits().data_ranks > 1 ? memory_.data_parallel() : nullptr; }

  ModelMemory& memory_;
  const ParamTable& params_;
  GradientBuffers buffers_;
  size_t packs_ = 0;                 // to come
  size_t rounds_ = 0;                // stage 2: packs of the rank with the most of them whose sums are to come
  bool last_pack_ = false;           // is under way
  size_t left_ = 0;                  // buckets that have not been handed over; those above have
  uint64_t mark_ = 0;                // of the last sum that runs beside; 0: none
  std::array<uint64_t, 4> marks_{};  // stage 2: of the last sum that reads each buffer
  uint64_t sent_ = 0;                // while sums run: before them
};

}  // namespace dapo
