#include "host/parallel/mpi_comm.h"

#ifdef DAPO_MPI
#define OMPI_SKIP_MPICXX 1  // the C++ bindings of old need another library
#include <mpi.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

namespace dapo {
namespace {

constexpr size_t kPiece = size_t{1} << 30;  ///< MPI counts in int
constexpr size_t kLatencyBytes = 4096;      ///< below, MPI's own all-gather takes fewer messages
constexpr int kCollective = 1, kMessage = 2;

void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  fail(kExitLostRank, "{}: {}", call, text.data());
}

int number(MPI_Comm comm, int (*what)(MPI_Comm, int*)) {
  int value = 0;
  check(what(comm, &value), "MPI_Comm_size");
  return value;
}

/// Calls f(offset, bytes) for pieces that an int counts.
template <class F>
void in_pieces(size_t bytes, F&& f) {
  for (size_t begin = 0; begin < bytes; begin += kPiece) f(begin, static_cast<int>(std::min(kPiece, bytes - begin)));
}

class MpiComm final : public HostComm {
 public:
  explicit MpiComm(MPI_Comm comm) : HostComm(number(comm, MPI_Comm_rank), number(comm, MPI_Comm_size)), comm_(comm) {
    check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  }

 private:
  void exchange(Blocks out, Blocks in, size_t bytes) override {
    if (bytes == 0) return;
    char* const own = out.data + rank() * out.distance;
    std::memmove(own, in.data + rank() * in.distance, bytes);
    // All ranks call it from a SideThread, or none does.
    if (in.distance == 0 && out.distance == bytes && bytes <= kLatencyBytes && !works_beside) {
      check(MPI_Allgather(MPI_IN_PLACE, 0, MPI_BYTE, out.data, static_cast<int>(bytes), MPI_BYTE, comm_),
            "MPI_Allgather");
      return;
    }
    requests_.clear();
    for (int i = 1; i < size(); ++i) {
      const int from = (rank() + size() - i) % size();
      in_pieces(bytes, [&](size_t begin, int count) {
        check(MPI_Irecv(out.data + from * out.distance + begin, count, MPI_BYTE, from, kCollective, comm_,
                        &requests_.emplace_back()),
              "MPI_Irecv");
      });
    }
    for (int i = 1; i < size(); ++i) {
      const int to = (rank() + i) % size();
      in_pieces(bytes, [&](size_t begin, int count) {
        check(MPI_Isend(in.data + to * in.distance + begin, count, MPI_BYTE, to, kCollective, comm_,
                        &requests_.emplace_back()),
              "MPI_Isend");
      });
    }
    if (works_beside) return wait_patiently();
    check(MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
  }
  /// MPI itself would look all the time, on a core that the rank computes on.
  void wait_patiently() {
    constexpr auto kPause = std::chrono::microseconds(50);
    for (int done = 0;;) {
      check(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
            "MPI_Testall");
      if (done != 0) return;
      std::this_thread::sleep_for(kPause);
    }
  }
  void spread(char* data, size_t bytes, int root) override {
    in_pieces(bytes, [&](size_t begin, int count) {
      check(MPI_Bcast(data + begin, count, MPI_BYTE, root, comm_), "MPI_Bcast");
    });
  }
  void put(const char* data, size_t bytes, int to) override {
    in_pieces(bytes, [&](size_t begin, int count) {
      check(MPI_Send(data + begin, count, MPI_BYTE, to, kMessage, comm_), "MPI_Send");
    });
  }
  void take(char* data, size_t bytes, int from) override {
    in_pieces(bytes, [&](size_t begin, int count) {
      check(MPI_Recv(data + begin, count, MPI_BYTE, from, kMessage, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
    });
  }
  std::unique_ptr<HostComm> of(const std::vector<int>& members) override {
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, members.front(), rank(), &part), "MPI_Comm_split");
    return std::make_unique<MpiComm>(part);  // never freed: that would wait for the other ranks
  }
  const MPI_Comm comm_;
  std::vector<MPI_Request> requests_;
};

class StartedMpi final : public MpiRanks {
 public:
  HostComm& comm() override { return comm_; }
  void finish() override { check(MPI_Finalize(), "MPI_Finalize"); }

 private:
  MpiComm comm_{MPI_COMM_WORLD};
};

}  // namespace

bool built_with_mpi() {
  return true;
}

std::unique_ptr<MpiRanks> start_mpi() {
  int provided = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_MULTIPLE)
    fail_input("this MPI was built without MPI_THREAD_MULTIPLE, which ranks need; install Open MPI 3 or later");
  return std::make_unique<StartedMpi>();
}

}  // namespace dapo

#else
namespace dapo {

bool built_with_mpi() {
  return false;
}

std::unique_ptr<MpiRanks> start_mpi() {
  fail_input("this program was built without MPI: install libopenmpi-dev and openmpi-bin, and run make again");
}

}  // namespace dapo
#endif
