#include "calls.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace sim {
namespace {

struct Injection {
  std::mutex mutex;
  long calls = 0, countdown = 0;
  int error = 0;
  std::string only;
  bool given = false;
  Injection() {
    if (const char* v = std::getenv("DAPO_SIM_FAIL")) {
      char name[64] = {};
      if (std::sscanf(v, "%ld:%d:%63s", &countdown, &error, name) < 2) countdown = 0;
      only = name;
    }
  }
};
Injection& injection() {
  static auto* i = new Injection;
  return *i;
}

std::atomic<long> handles{0};
std::atomic<cudaError_t> last_error{cudaSuccess};

}  // namespace

int enter(const char* name) {
  Injection& i = injection();
  std::lock_guard lock(i.mutex);
  ++i.calls;
  if (i.countdown <= 0 || (!i.only.empty() && i.only != name)) return 0;
  if (--i.countdown > 0) return 0;
  i.given = true;
  return i.error;
}

void fail_call(long n, int error, const char* only) {
  Injection& i = injection();
  std::lock_guard lock(i.mutex);
  i.countdown = n;
  i.error = error;
  i.only = only ? only : "";
  i.given = false;
}

long calls() {
  std::lock_guard lock(injection().mutex);
  return injection().calls;
}

bool failed() {
  std::lock_guard lock(injection().mutex);
  return injection().given;
}

void count_handles(long change) {
  handles += change;
}

long live_handles() {
  return handles;
}

cudaError_t keep(cudaError_t e) {
  if (e != cudaSuccess) last_error = e;
  return e;
}

}  // namespace sim

cudaError_t cudaGetLastError() {
  return sim::last_error.exchange(cudaSuccess);
}
cudaError_t cudaPeekAtLastError() {
  return sim::last_error;
}
