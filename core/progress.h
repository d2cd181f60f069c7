// What a step's time goes into, and how it is told to whoever shows it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace dapo {

enum class Phase : uint8_t { rollout, reward, update, eval, count };
inline const char* phase_name(Phase p) {
  constexpr const char* names[] = {"rollout", "reward", "update", "eval"};
  return p < Phase::count ? names[static_cast<size_t>(p)] : "?";
}

/// Seconds and tokens by phase. rollout: response tokens drawn (prompt rows apart); reward: responses; update: rows of
/// the packs, forward and backward; eval: response tokens drawn. Reward runs beside rollout: its seconds are only those
/// that were waited for.
struct PhaseTimes {
  struct Row {
    double seconds = 0;
    int64_t tokens = 0;
    double flops = 0;  ///< products and attention of the model (ModelConfig::forward_flops), 0 where not counted
  };
  std::array<Row, static_cast<size_t>(Phase::count)> rows;
  Row& operator[](Phase p) { return rows[static_cast<size_t>(p)]; }
  const Row& operator[](Phase p) const { return rows[static_cast<size_t>(p)]; }
};

/// Hears how far a phase is. Calls come from one thread, often (each batch of tokens): be quick.
class Progress {
 public:
  virtual ~Progress() = default;
  /// `done` of `total` units (rollout, eval: responses; update: rows of packs); tokens since the phase began.
  virtual void report(Phase phase, int64_t done, int64_t total, int64_t tokens) = 0;
  /// One line worth a reader's attention (alarms, a step that trains on less than a batch).
  virtual void note(const char* text) = 0;
};

/// Hears nothing.
class NoProgress final : public Progress {
 public:
  void report(Phase, int64_t, int64_t, int64_t) override {}
  void note(const char*) override {}
};

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace dapo
