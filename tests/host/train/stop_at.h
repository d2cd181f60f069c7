// Stops a run at a chosen report of its progress.
#pragma once

#include "core/check.h"
#include "core/progress.h"

namespace dapo {

/// Throws at its `left`-th report, counted from 0: as a signal does, or another error.
class StopAt final : public Progress {
 public:
  explicit StopAt(int left, int code = kExitInterrupted) : left_(left), code_(code) {}
  void report(Phase, int64_t, int64_t, int64_t) override {
    if (left_-- == 0) throw Error(code_, "this rank alone");
  }
  void note(const char*) override {}
  bool stopped() const { return left_ < 0; }

 private:
  int left_, code_;
};

}  // namespace dapo
