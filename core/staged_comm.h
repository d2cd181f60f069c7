// Collectives on the memory of devices through that of the host: each tensor is copied there, exchanged between the ranks,
// and copied back. Slow; but it needs no library, and ranks may share a GPU.
#pragma once

#include "core/backend.h"
#include "core/host_comm.h"

namespace dapo {

class StagedComm final : public Comm {
 public:
  /// `backend`: that of this rank; `host` connects the same ranks. Both must outlive the communicator.
  StagedComm(Backend& backend, HostComm& host) : backend_(backend), host_(host) {}
  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  int world_rank(int rank) const override { return host_.world_rank(rank); }
  bool recordable() const override { return false; }
  void all_reduce_sum(const Tensor& t) override;
  void all_reduce_max(const Tensor& t) override;
  void all_gather(const Tensor& out, const Tensor& in) override;
  void reduce_scatter(const Tensor& out, const Tensor& in) override;
  void all_to_all(const Tensor& out, const Tensor& in) override;
  void broadcast(const Tensor& t, int root) override;
  void send(const Tensor& t, int to) override;
  void recv(const Tensor& t, int from) override;
  void barrier() override;
  void wait_for_others(const std::function<void()>& wait) override { host_.wait_for_others(wait); }
  uint64_t sent() const override { return host_.sent(); }
  std::vector<std::string> all_gather_bytes(std::string_view bytes) override { return host_.all_gather_bytes(bytes); }
  std::string broadcast_bytes(std::string bytes, int root) override {
    return host_.broadcast_bytes(std::move(bytes), root);
  }

 private:
  /// A tensor of the shape of `t` in the host's memory, of which this object has two.
  Tensor room(int which, const Tensor& t);
  /// A copy of `t` there.
  Tensor fetch(int which, const Tensor& t);
  void store(const Tensor& t, const Tensor& host);

  Backend& backend_;
  HostComm& host_;
  std::vector<char> buffers_[2];
};

}  // namespace dapo
