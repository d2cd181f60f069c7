#include "host/app/save.h"

#include <filesystem>
#include <thread>

#include "host/app/interrupt.h"
#include "host/train/share.h"

namespace dapo {
namespace fs = std::filesystem;

uint64_t free_bytes(const std::string& path) {
  std::error_code error;
  fs::path at = fs::absolute(path, error);
  while (!fs::exists(at, error) && at.has_relative_path()) at = at.parent_path();
  const fs::space_info space = fs::space(at, error);
  return error ? 0 : space.available;
}

std::string save_patiently(const std::string& folder, const Weights& weights, Progress& progress, Comm& comm,
                           const std::function<std::string()>& save) {
  const uint64_t model = static_cast<uint64_t>(weights.config().parameters()) * dtype_size(weights.backend().dtype());
  const uint64_t bytes = model + model / 20 + (1 << 20);  // the tokenizer, and other programs' writes meanwhile
  const Stopwatch waiting;
  for (bool noted = false;; noted = true) {
    try {
      return save();
    } catch (const Error& e) {
      if (e.code() != kExitResources) throw;
      const bool gives_up = free_bytes(folder) > bytes || interrupted() || waiting.seconds() > 600;
      if (value_of_any(comm, gives_up)) throw;
      if (!noted)
        progress.note(
            fmt::format("{}; the disk has {:.3g} GB left, the model takes {:.3g}: free some space; retrying for "
                        "ten minutes",
                        e.what(), static_cast<double>(free_bytes(folder)) / 1e9, static_cast<double>(bytes) / 1e9)
                .c_str());
    }
    for (int i = 0; i < 20 && !interrupted(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace dapo
