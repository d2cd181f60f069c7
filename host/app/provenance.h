// Provenance of a result: program, commit, machine, time, and the files that were read, each with size and hash.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dapo {

/// Size and hash of a file: "5,120 bytes, fnv 0123456789abcdef". Files above 64 MiB are hashed in 64 blocks of 1 MiB,
/// evenly spread; the hash is then "fnv64x1M ...".
struct FilePrint {
  std::string path, hash;
  uint64_t bytes = 0;
};
FilePrint print_of(const std::string& path);

/// What a run measured and planned before it began.
struct RunNotes {
  double product_gflops = 0;  ///< measure_flops() of the device
  std::string plan;           ///< plan_text()
};

/// A JSON object for dapo.json: program, version, commit, host, process, time, device, model and data files, and the
/// notes, if any.
std::string provenance(const std::string& program, const std::string& device, const std::string& model_folder,
                       const std::vector<std::string>& data_files, const RunNotes& notes = {});
/// The same for a log: one line per file.
std::string provenance_text(const std::string& json);

}  // namespace dapo
