// Collectives on the memory of devices through that of the host: each tensor is copied there, exchanged between the ranks,
// and copied back. Slow; but it needs no library, and ranks may share a GPU.
#pragma once

#include "core/device_comm.h"

namespace dapo {

class StagedComm final : public DeviceComm {
 public:
  using DeviceComm::DeviceComm;
  bool recordable() const override { return false; }
  void all_reduce_sum(const Tensor& t) override;
  void all_reduce_max(const Tensor& t) override;
  void all_gather(const Tensor& out, const Tensor& in) override;
  void reduce_scatter(const Tensor& out, const Tensor& in) override;
  void all_to_all(const Tensor& out, const Tensor& in) override;
  void broadcast(const Tensor& t, int root) override;
  void send(const Tensor& t, int to) override;
  void recv(const Tensor& t, int from) override;
  uint64_t sent() const override { return host_.sent(); }

 private:
  /// A tensor of the shape of `t` in the host's memory, of which this object has two.
  Tensor room(int which, const Tensor& t);
  /// A copy of `t` there.
  Tensor fetch(int which, const Tensor& t);
  void store(const Tensor& t, const Tensor& host);
  /// t = what call(its copy) makes of that.
  template <class Call>
  void in_place(const Tensor& t, Call call);
  /// out = what call(to, a copy of `in`) writes to `to`.
  template <class Call>
  void out_of_place(const Tensor& out, const Tensor& in, Call call);

  std::vector<char> buffers_[2];
};

}  // namespace dapo
