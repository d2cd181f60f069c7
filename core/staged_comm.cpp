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

template <class Call>
void StagedComm::in_place(const Tensor& t, Call call) {
  const Tensor host = fetch(0, t);
  call(host);
  store(t, host);
}

template <class Call>
void StagedComm::out_of_place(const Tensor& out, const Tensor& in, Call call) {
  const Tensor to = room(1, out);
  call(to, fetch(0, in));
  store(out, to);
}

void StagedComm::all_reduce_sum(const Tensor& t) {
  in_place(t, [&](const Tensor& host) { host_.all_reduce_sum(host); });
}

void StagedComm::all_reduce_max(const Tensor& t) {
  in_place(t, [&](const Tensor& host) { host_.all_reduce_max(host); });
}

void StagedComm::all_gather(const Tensor& out, const Tensor& in) {
  out_of_place(out, in, [&](const Tensor& to, const Tensor& from) { host_.all_gather(to, from); });
}

void StagedComm::reduce_scatter(const Tensor& out, const Tensor& in) {
  out_of_place(out, in, [&](const Tensor& to, const Tensor& from) { host_.reduce_scatter(to, from); });
}

void StagedComm::all_to_all(const Tensor& out, const Tensor& in) {
  CHECK(out.data != in.data || in.numel() == 0, "not in place");
  out_of_place(out, in, [&](const Tensor& to, const Tensor& from) { host_.all_to_all(to, from); });
}

void StagedComm::broadcast(const Tensor& t, int root) {
  in_place(t, [&](const Tensor& host) { host_.broadcast(host, root); });
}

void StagedComm::send(const Tensor& t, int to) {
  host_.send(fetch(0, t), to);
}

void StagedComm::recv(const Tensor& t, int from) {
  const Tensor host = room(0, t);
  host_.recv(host, from);
  store(t, host);
}

}  // namespace dapo
