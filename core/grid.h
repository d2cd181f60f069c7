// The ranks of a run as a grid. Tensor-parallel groups are neighbours, so that a group lies within one machine: rank
// d * tp + t is rank t of group d. Ranks with the same t hold the same part of the weights, and train data-parallel.
#pragma once

#include <cstring>
#include <memory>

#include "core/host_comm.h"

namespace dapo {

/// Communicators for memory of the host. All ranks of a tensor group make the same calls with the same inputs, and get
/// the same bits; what they could see differently (a clock, a disk, a signal, a verifier) its first rank decides.
struct Grid {
  Comm& world;   ///< all ranks
  Comm& tensor;  ///< the ranks that share a copy of the weights with this one
  Comm& data;    ///< the ranks that hold the same part of the weights as this one
  /// Whether this rank decides for its tensor group.
  bool leads() const { return tensor.rank() == 0; }
};

/// Owns the communicators of the grid's rows and columns.
class HostGrid {
 public:
  /// One rank: all three are `alone`.
  explicit HostGrid(Comm& alone) : grid_{alone, alone, alone} {}
  /// `tp` divides the number of ranks. All ranks call it.
  HostGrid(HostComm& world, int tp)
      : tensor_(splits(world, tp) ? world.split(world.rank() / tp, Among::tensor) : nullptr),
        data_(splits(world, tp) ? world.split(world.rank() % tp, Among::data) : nullptr),
        grid_{world, either(tensor_.get(), tp > 1 ? &world : nullptr), either(data_.get(), tp > 1 ? nullptr : &world)} {
  }
  const Grid& grid() const { return grid_; }

 private:
  static bool splits(const HostComm& world, int tp) {
    CHECK(tp >= 1 && world.size() % tp == 0, "{} ranks in groups of {}", world.size(), tp);
    return tp > 1 && tp < world.size();
  }
  Comm& either(HostComm* part, HostComm* whole) {
    if (part != nullptr) return *part;
    return whole != nullptr ? static_cast<Comm&>(*whole) : alone_;
  }
  const std::unique_ptr<HostComm> tensor_, data_;
  SingleComm alone_{[](void*, const Tensor& to, const Tensor& from) { std::memcpy(to.data, from.data, from.bytes()); },
                    nullptr};
  const Grid grid_;
};

}  // namespace dapo
