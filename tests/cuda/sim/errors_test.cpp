// Problems of users: no driver, an old one, no GPU, one that is too old, in use or too small. And every call into the
// driver fails once: that gives an Error, no crash, and leaves nothing behind.
#include "cuda/cuda_device.h"
#include "host/app/backends.h"
#include "tests/cuda/sim/driver_test.h"
#include "tests/model/rig.h"

namespace dapo {
namespace {

class CudaErrors : public DriverTest {
 protected:
  void expect_refused(int code, const std::string& says) {
    expect_error(code, says, [] { make_backend("cuda", "bf16"); });
  }
};

TEST_F(CudaErrors, EachReasonIsNamed) {
  const sim::Live before = sim::live();
  sim::set_driver_version(0);
  expect_refused(kExitUsage, "no NVIDIA driver");
  sim::set_driver_version(11080);
  expect_refused(kExitUsage, "the driver supports CUDA 11.8, 13.0 is needed");
  sim::set_driver_version(12080);
  expect_refused(kExitUsage, "the driver supports CUDA 12.8, 13.0 is needed");
  sim::reset_device();
  sim::set_device_count(0);
  expect_refused(kExitUsage, "no GPU");
  sim::reset_device();
  cudaDeviceProp old = sim::device_properties();
  old.major = 7, old.minor = 5;
  sim::set_device_properties(old);
  expect_refused(kExitUsage, "sm_75");
  sim::reset_device();
  sim::fail_call(1, cudaErrorSystemNotReady, "cudaGetDeviceCount");
  expect_refused(kExitResources, "the driver cannot list its GPUs");
  sim::reset_device();
  sim::fail_call(1, cudaErrorDevicesUnavailable, "cudaSetDevice");
  expect_refused(kExitResources, "another process may hold it");
  EXPECT_EQ(sim::live().total(), before.total());
}

TEST_F(CudaErrors, AutoUsesTheCpuIfNoGpuIsUsableAndSaysWhy) {
  const auto expect_cpu = [](const std::string& says) {
    const ChosenBackend chosen = make_backend("auto", "f32");
    EXPECT_EQ(chosen.backend->device(), Device::cpu);
    EXPECT_NE(chosen.why.find("no GPU in use: "), std::string::npos) << chosen.why;
    EXPECT_NE(chosen.why.find(says), std::string::npos) << chosen.why;
    sim::reset_device();
  };
  sim::set_driver_version(0);
  expect_cpu("no NVIDIA driver");
  sim::set_driver_version(12080);
  expect_cpu("CUDA 12.8, 13.0 is needed");
  sim::set_device_count(0);
  expect_cpu("shows no GPU");
  cudaDeviceProp old = sim::device_properties();
  old.major = 7, old.minor = 5;
  sim::set_device_properties(old);
  expect_cpu("sm_75");
  sim::fail_call(1, cudaErrorSystemNotReady, "cudaGetDeviceCount");  // there is a GPU, and it was asked for
  expect_error(kExitResources, "the driver cannot list its GPUs", [] { make_backend("auto", "f32"); });
  sim::reset_device();
  EXPECT_EQ(make_backend("auto", "f32").backend->device(), Device::cuda);
}

TEST_F(CudaErrors, TooLittleMemorySaysHowMuch) {
  sim::set_total_memory(64 << 20);
  const auto backend = make_cuda_backend(DType::bf16);
  expect_error(kExitResources, "cannot allocate 3.22 GB (", [&] { backend->allocate(size_t{3} << 30); });
}

/// A prompt, a few decoded tokens (with a graph), a forward and backward, an update.
void workload() {
  ModelConfig config = toy_config();
  config.layers = 1;
  Rig rig(config, DType::bf16);
  rig.weights->init(7, 0.15f);
  Group group{random_ids(1, 9, 101), {random_ids(2, 5, 101)}};
  Pack pack = make_pack({group});
  ModelLimits limits = training_limits(pack, 128);
  limits.batch = 1, limits.prefill_tokens = 16, limits.kv_pages = 4;
  rig.reserve(limits);
  rig.decoder->begin();
  PagedBatch b{.ids = group.prompt,
               .row_begin = {0, 9},
               .prefix_length = {0},
               .own_length = {9},
               .pages = {2, 1},
               .max_pages = 2,
               .head_rows = {8},
               .keys = {{}},
               .positions = {9}};
  std::vector<int32_t> token(1), rest(3);
  std::vector<float> log_prob(1), rest_log_prob(3);
  rig.decoder->prefill(b, {}, token, log_prob);
  b.ids = token, b.row_begin = {0, 1}, b.own_length = {10}, b.head_rows = {0}, b.positions = {10};
  rig.decoder->decode(b, 3, {}, rest, rest_log_prob);
  rig.learner->begin();
  rig.learner->train(pack, 1.0f, {});
  rig.learner->update(
      {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0, .step = 1, .max_norm = 1});
}

TEST_F(CudaErrors, EveryCallFailsOnce) {
  workload();  // what a process does once, whichever tests came before
  const long total = sim::live().total(), first = sim::calls();
  workload();
  const long calls = sim::calls() - first;
  EXPECT_GT(calls, 100);
  EXPECT_EQ(sim::live().total(), total) << "the workload leaves something behind";
  // Each of the first calls (start, allocation, loading), then every thirteenth: kernels and copies are all alike.
  int refused = 0;
  for (long n = 1; n <= calls; n += n < 120 ? 1 : 13) {
    sim::fail_call(n, cudaErrorUnknown);
    try {
      workload();
    } catch (const Error& e) {
      ++refused;
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    }
    EXPECT_TRUE(sim::failed()) << "call " << n;
    sim::fail_call(0, 0);
    EXPECT_EQ(sim::live().total(), total) << "call " << n;
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace dapo
