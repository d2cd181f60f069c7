#include <algorithm>
#include <utility>

#include "cuda/cuda_backend.h"
#include "cuda/side_stream.h"

namespace dapo::cuda {

SideStream::SideStream() {
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (Slot& s : slots) {
    CUDA_CHECK(cudaEventCreateWithFlags(&s.before, cudaEventDisableTiming));
    for (cudaEvent_t* timed : std::array{&s.begin, &s.end, &s.joined}) CUDA_CHECK(cudaEventCreateWithFlags(timed, 0));
  }
}

SideStream::~SideStream() {
  cudaStreamSynchronize(stream);
  for (const Slot& s : slots)
    for (cudaEvent_t event : std::array{s.before, s.begin, s.end, s.joined}) cudaEventDestroy(event);
  cudaStreamDestroy(stream);
}

template <class T>
uint64_t CudaBackend<T>::beside(std::function<void()> work) {
  use_device();
  if (side_ == nullptr) side_ = std::make_unique<SideStream>();
  const uint64_t mark = side_->last + 1;
  settle(mark);
  SideStream::Slot& slot = side_->slot(mark);
  CUDA_CHECK(cudaEventRecord(slot.before, stream_));
  CUDA_CHECK(cudaStreamWaitEvent(side_->stream, slot.before, 0));
  CUDA_CHECK(cudaEventRecord(slot.begin, side_->stream));
  struct Swapped {
    cudaStream_t &a, &b;
    Swapped(cudaStream_t& x, cudaStream_t& y) : a(x), b(y) { std::swap(a, b); }
    ~Swapped() { std::swap(a, b); }
    Swapped(const Swapped&) = delete;
    Swapped& operator=(const Swapped&) = delete;
  };
  {
    const Swapped streams(stream_, side_->stream);
    work();
  }
  CUDA_CHECK(cudaEventRecord(slot.end, side_->stream));
  slot.used = true;
  return side_->last = mark;
}

template <class T>
void CudaBackend<T>::join(uint64_t mark) {
  CHECK(side_ != nullptr && mark > 0 && mark <= side_->last, "mark {} of work beside is not known", mark);
  use_device();
  // A slot that was taken again is that of later work: its end is late, never early.
  SideStream::Slot& slot = side_->slot(mark);
  if (slot.used && !slot.waits) CUDA_CHECK(cudaEventRecord(slot.joined, stream_));
  CUDA_CHECK(cudaStreamWaitEvent(stream_, slot.end, 0));
  slot.waits = true;
}

/// Adds up the times of the work in the slot that `mark` takes, and frees the slot.
template <class T>
void CudaBackend<T>::settle(uint64_t mark) {
  SideStream::Slot& slot = side_->slot(mark);
  if (!slot.used) return;
  const auto seconds = [](cudaEvent_t from, cudaEvent_t to) {
    float ms = 0;
    CUDA_CHECK(cudaEventElapsedTime(&ms, from, to));
    return std::max(0.0, static_cast<double>(ms) * 1e-3);
  };
  wait_for(slot.end);
  side_->seconds.work += seconds(slot.begin, slot.end);
  if (slot.waits) {
    wait_for(slot.joined);
    side_->seconds.waited += seconds(slot.joined, slot.end);
  }
  slot.used = slot.waits = false;
}

template <class T>
Backend::BesideSeconds CudaBackend<T>::beside_seconds() {
  if (side_ == nullptr) return {};
  use_device();
  for (uint64_t mark = 0; mark < SideStream::kSlots; ++mark) settle(mark);
  return side_->seconds;
}

#define DAPO_INSTANTIATE(T)                                        \
  template uint64_t CudaBackend<T>::beside(std::function<void()>); \
  template void CudaBackend<T>::join(uint64_t);                    \
  template void CudaBackend<T>::settle(uint64_t);                  \
  template Backend::BesideSeconds CudaBackend<T>::beside_seconds();
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
