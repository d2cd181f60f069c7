// The gradients of a rank, from the packs that add to them to their sum over the data-parallel ranks. The sum of a bucket
// (model/shards.h) may begin as soon as the last pack's backward has left it, and then runs beside what is left of that.
#pragma once

#include "model/model_memory.h"

namespace dapo {

class Gradients {
 public:
  explicit Gradients(ModelMemory& memory)
      : memory_(memory), params_(memory.weights().params()), left_(memory.shards().buckets()) {}
  /// Where they lie; f32[parameters], flat, in table order.
  void lie_in(const Tensor& flat) { flat_ = flat; }
  Tensor flat() const { return flat_; }
  /// Of parameter `index`: [rows, columns], or [rows].
  Tensor of(int index) const { return params_.view(flat_, index); }
  void zero();
  /// They are zero already.
  void are_zero();

  /// A mini-batch begins, of which this rank has so many packs.
  void begin(size_t packs) { packs_ = packs; }
  /// The backward of a pack begins.
  void pack_begins();
  /// Its backward has left this bucket. The last bucket comes first, as the passes run.
  void bucket_done(size_t bucket);
  /// Sums what has not been summed, and waits for it: this rank's slices are then the sums over the ranks, in their order.
  /// Every rank calls it, also one that had no pack, or failed in one: all then have made the same collectives.
  void end();
  /// Buckets whose sum has not begun.
  size_t left() const { return left_; }
  /// Bytes that this rank has sent in the last such sum.
  uint64_t sent() const { return sent_; }

 private:
  void sum_next();
  void sum_copies(size_t bucket);
  Comm* ranks() const { return memory_.limits().data_ranks > 1 ? memory_.data_parallel() : nullptr; }

  ModelMemory& memory_;
  const ParamTable& params_;
  Tensor flat_;
  size_t packs_ = 0;        // to come
  bool last_pack_ = false;  // is under way
  size_t left_;             // buckets that have not been handed over; those above have
  uint64_t mark_ = 0;       // of the last sum that runs beside; 0: none
  uint64_t sent_ = 0;       // while sums run: before them
};

}  // namespace dapo
