#include "core/staged_comm.h"

#include <algorithm>

namespace dapo {

Tensor StagedComm::room(int which, const Tensor& t) {
  std::vector<char>& buffer = buffers_[which];
  if (const size_t bytes = std::max<size_t>(t.bytes(), 1); buffer.size() < bytes) buffer.resize(bytes);  // never null
  Tensor host = t;
  host.data = buffer.data();
  return host;
}

Tensor StagedComm::fetch(int which, const Tensor& t) {
  const Tensor host = room(which, t);
  backend_.copy_out(host.data, t);
  backend_.synchronize();
  return host;
}

void StagedComm::store(const Tensor& t, const Tensor& host) {
  backend_.copy_in(t, host.data);
  backend_.synchronize();
}

void StagedComm::all_reduce_sum(const Tensor& t) {
  const Tensor host = fetch(0, t);
  host_.all_reduce_sum(host);
  store(t, host);
}

void StagedComm::all_reduce_max(const Tensor& t) {
  const Tensor host = fetch(0, t);
  host_.all_reduce_max(host);
  store(t, host);
}

void StagedComm::all_gather(const Tensor& out, const Tensor& in) {
  const Tensor all = room(1, out);
  host_.all_gather(all, fetch(0, in));
  store(out, all);
}

void StagedComm::reduce_scatter(const Tensor& out, const Tensor& in) {
  const Tensor sum = room(1, out);
  host_.reduce_scatter(sum, fetch(0, in));
  store(out, sum);
}

void StagedComm::all_to_all(const Tensor& out, const Tensor& in) {
  CHECK(out.data != in.data || in.numel() == 0, "not in place");
  const Tensor all = room(1, out);
  host_.all_to_all(all, fetch(0, in));
  store(out, all);
}

void StagedComm::broadcast(const Tensor& t, int root) {
  const Tensor host = fetch(0, t);
  host_.broadcast(host, root);
  store(t, host);
}

void StagedComm::send(const Tensor& t, int to) {
  host_.send(fetch(0, t), to);
}

void StagedComm::recv(const Tensor& t, int from) {
  const Tensor host = room(0, t);
  host_.recv(host, from);
  store(t, host);
}

void StagedComm::barrier() {
  backend_.synchronize();
  host_.barrier();
}

}  // namespace dapo
