#include "tests/model/rig.h"

#include "cpu/cpu_backend.h"
#include "tests/thread_comm.h"

namespace dapo {

std::unique_ptr<Backend> rig_backend(DType dtype) {
  return make_cpu_backend(dtype);
}
void run_rig_ranks(DType dtype, int ranks, const std::function<void(Backend&, Comm&)>& rank) {
  run_ranks(ranks, [&](Comm& comm) { rank(*rig_backend(dtype), comm); });
}
bool rig_has(DType dtype) {
  return dtype == DType::f32 || cpu_has_bf16();
}

}  // namespace dapo
