// Communicators of GPU memory: by NCCL, and through the host.
#include "cuda/nccl_comm.h"

#include <gtest/gtest.h>

#include "tests/cuda/gpu_ranks.h"

namespace dapo {
namespace {

/// Moves tensors of the host to the device and back round each call, so that the cases of all communicators run here.
class ThroughDevice final : public Comm {
 public:
  ThroughDevice(Backend& backend, Comm& comm) : backend_(backend), comm_(comm) {}
  int rank() const override { return comm_.rank(); }
  int size() const override { return comm_.size(); }
  void all_reduce_sum(const Tensor& t) override { comm_.all_reduce_sum(*Moved(backend_, t)); }
  void all_reduce_max(const Tensor& t) override { comm_.all_reduce_max(*Moved(backend_, t)); }
  void all_gather(const Tensor& out, const Tensor& in) override {
    within(out, in, [&](const Tensor& o, const Tensor& i) { comm_.all_gather(o, i); });
  }
  void reduce_scatter(const Tensor& out, const Tensor& in) override {
    within(in, out, [&](const Tensor& i, const Tensor& o) { comm_.reduce_scatter(o, i); });
  }
  void all_to_all(const Tensor& out, const Tensor& in) override {
    const Moved o(backend_, out), i(backend_, in);
    comm_.all_to_all(*o, *i);
  }
  void broadcast(const Tensor& t, int root) override { comm_.broadcast(*Moved(backend_, t), root); }
  void send(const Tensor& t, int to) override { comm_.send(*Moved(backend_, t), to); }
  void recv(const Tensor& t, int from) override { comm_.recv(*Moved(backend_, t), from); }
  void barrier() override { comm_.barrier(); }
  std::vector<std::string> all_gather_bytes(std::string_view bytes) override { return comm_.all_gather_bytes(bytes); }
  std::string broadcast_bytes(std::string bytes, int root) override {
    return comm_.broadcast_bytes(std::move(bytes), root);
  }

 private:
  class Moved {
   public:
    Moved(Backend& backend, const Tensor& host) : backend_(backend), host_(host), device_(host) {
      device_.data = backend.allocate(std::max<size_t>(host.bytes(), 16), true);
      if (host.bytes() > 0) backend.copy_in(device_, host.data);
      backend.synchronize();
    }
    ~Moved() {
      if (host_.bytes() > 0) backend_.copy_out(host_.data, device_);
      backend_.synchronize();
      backend_.release(device_.data, std::max<size_t>(host_.bytes(), 16));
    }
    Moved(const Moved&) = delete;
    Moved& operator=(const Moved&) = delete;
    const Tensor& operator*() const { return device_; }

   private:
    Backend& backend_;
    const Tensor host_;
    Tensor device_;
  };
  /// `part` may lie inside `whole`, and then does so on the device.
  template <class F>
  void within(const Tensor& whole, const Tensor& part, F&& call) {
    const auto *begin = static_cast<const char*>(whole.data), *at = static_cast<const char*>(part.data);
    const Moved w(backend_, whole);
    if (at >= begin && at < begin + whole.bytes()) {
      Tensor inside = part;
      inside.data = static_cast<char*>((*w).data) + (at - begin);
      return call(*w, inside);
    }
    call(*w, *Moved(backend_, part));
  }
  Backend& backend_;
  Comm& comm_;
};

struct Transported {
  bool staged;
  int ranks;
};
std::string name_of(const testing::TestParamInfo<Transported>& info) {
  return fmt::format("{}{}", info.param.staged ? "Staged" : "Nccl", info.param.ranks);
}

class DeviceComms : public testing::TestWithParam<Transported> {
 protected:
  void SetUp() override {
    if (const std::string why = GetParam().staged ? "" : no_nccl(); !why.empty()) GTEST_SKIP() << why;
  }
  void with_ranks(const std::function<void(Comm&)>& work) {
    const auto run = GetParam().staged ? run_staged_ranks : run_gpu_ranks;
    run(DType::f32, GetParam().ranks, [&](Backend& backend, Comm& of_device) {
      ThroughDevice comm(backend, of_device);
      work(comm);
    });
  }
};

TEST_P(DeviceComms, EveryCollectiveGivesWhatItsDefinitionSays) {
  with_ranks([](Comm& comm) { EXPECT_EQ(wrong_collectives(comm, {0, 1, 3, 64, 1003}), ""); });
}

TEST_P(DeviceComms, SumsAreInRankOrder) {
  with_ranks([](Comm& comm) { EXPECT_EQ(wrong_sums(comm, {0, 1, 3, 64, 1003}), ""); });
}

TEST_P(DeviceComms, ARankOutOfStepIsNamed) {
  if (GetParam().ranks == 1) return;
  with_ranks([](Comm& comm) { EXPECT_EQ(wrong_mismatches(comm), ""); });
}

std::vector<Transported> transported() {
  std::vector<Transported> all = {{true, 1}, {true, 2}, {true, 3}};
  for (const int ranks : gpu_rank_counts()) all.push_back({false, ranks});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Ranks, DeviceComms, testing::ValuesIn(transported()), name_of);

TEST(NcclComm, WaitsForTheDeviceShowInTheHeartbeat) {
  if (!cuda_simulated()) GTEST_SKIP() << "two ranks on one GPU";
  run_ranks(2, [&](Comm& host) {
    Heartbeat heartbeat;
    auto& own = dynamic_cast<HostComm&>(host);
    own.report_to(&heartbeat);
    const std::unique_ptr<Backend> backend = make_cuda_backend(DType::f32);
    {
      const std::unique_ptr<Comm> nccl = make_nccl_comm(*backend, own);
      backend->synchronize();
      EXPECT_EQ(heartbeat.op.text(), "device wait");
      EXPECT_TRUE(heartbeat.device);
      EXPECT_FALSE(heartbeat.inside);
      EXPECT_EQ(heartbeat.calls_of(Among::world), own.sequence());
    }
    host.barrier();
    backend->synchronize();
    EXPECT_EQ(heartbeat.op.text(), "barrier") << "after its end the backend waits as before";
    own.report_to(nullptr);
  });
}

TEST(NcclComm, AnErrorOfOneRankEndsTheWaitsOfTheOthers) {
  if (!cuda_simulated()) GTEST_SKIP() << "two ranks on one GPU";
  std::string error;
  EXPECT_THROW(run_ranks(2,
                         [&](Comm& host) {
                           const std::unique_ptr<Backend> backend = make_cuda_backend(DType::f32);
                           const std::unique_ptr<Comm> nccl = make_nccl_comm(*backend, dynamic_cast<HostComm&>(host));
                           if (host.rank() == 1) fail_input("a bad row");
                           float x = 0;
                           ThroughDevice comm(*backend, *nccl);
                           error = error_of([&] { comm.recv(Tensor::of(std::span<float>(&x, 1)), 1); });
                         }),
               Error);
  EXPECT_EQ(error.substr(0, 3), "5: ") << error;
}

TEST(StagedComm, RanksThatShareAGpuPlanWithTheirPartOfItsMemory) {
  run_staged_ranks(DType::f32, 2, [](Backend& backend, Comm& comm) {
    const size_t total = backend.memory_total(), bytes = size_t{3} << 20, before = backend.memory_available();
    EXPECT_EQ(total, make_cuda_backend(DType::f32)->memory_total() / 2);
    EXPECT_LE(before, total);
    void* const p = backend.allocate(bytes, true);
    comm.barrier();
    EXPECT_LE(backend.memory_available(), before - bytes) << "its own";
    if (cuda_simulated()) {
      EXPECT_EQ(backend.memory_available(), before - bytes) << "not what the other has taken";
    }
    comm.barrier();
    backend.release(p, bytes);
  });
}

}  // namespace
}  // namespace dapo
