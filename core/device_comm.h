// What communicators of a device's memory have in common: the ranks, and the host's bytes, are those of a HostComm.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/host_comm.h"

namespace dapo {

class DeviceComm : public Comm {
 public:
  /// `backend`: that of this rank; `host` connects the same ranks. Both must outlive the communicator.
  DeviceComm(Backend& backend, HostComm& host) : backend_(backend), host_(host) {}
  int rank() const final { return host_.rank(); }
  int size() const final { return host_.size(); }
  int world_rank(int rank) const final { return host_.world_rank(rank); }
  void barrier() final {
    backend_.synchronize();
    host_.barrier();
  }
  void wait_for_others(const std::function<void()>& wait) final { host_.wait_for_others(wait); }
  std::vector<std::string> all_gather_bytes(std::string_view bytes) final { return host_.all_gather_bytes(bytes); }
  std::string broadcast_bytes(std::string bytes, int root) final {
    return host_.broadcast_bytes(std::move(bytes), root);
  }

 protected:
  Backend& backend_;
  HostComm& host_;
};

}  // namespace dapo
