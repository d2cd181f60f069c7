#include "host/app/rank_start.h"

#include <algorithm>
#include <filesystem>

#include "core/check.h"
#include "host/app/grid_choice.h"
#include "host/app/provenance.h"
#include "host/app/version.h"
#include "host/parallel/launch.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

/// Every setting by its key, so that the error names the one that differs.
std::vector<StartFact> setting_facts(const Config& config) {
  std::vector<StartFact> facts;
  std::string section;
  const std::string text = config_text(config);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const size_t equals = line.find(" = ");
    if (line.starts_with('['))
      section = line.substr(1, line.find(']') - 1);
    else if (!line.empty())
      facts.push_back({section + "." + line.substr(0, equals), equals == line.npos ? line : line.substr(equals + 3),
                       "start all ranks with the same config"});
  }
  return facts;
}

/// What decides bits: "cpu, AVX-512 BF16, bf16" of "cpu: NAME, 2 threads, AVX-512 BF16, 31.0 GiB, bf16".
std::string device_kind(const std::string& described) {
  std::string kind;
  for (size_t at = 0; at <= described.size();) {
    const size_t end = std::min(described.find(", ", at), described.size());
    const std::string part = described.substr(at, end - at);
    if (at == 0)
      kind = part.substr(0, part.find(':'));
    else if (part.find(" thread") == part.npos && !part.ends_with("GiB"))
      kind += ", " + part;
    at = end + 2;
  }
  return kind;
}

/// Sizes and first bytes of a model's files: all of config.json, the headers of the weights.
std::string model_print(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none))
    if (entry.path().extension() == ".safetensors" || entry.path().filename() == "config.json")
      files.push_back(entry.path().filename().string());
  std::sort(files.begin(), files.end());
  std::string print;
  for (const std::string& file : files) {
    const FilePrint p = print_of((fs::path(folder) / file).string());
    print += fmt::format("{}{} {} bytes {}", print.empty() ? "" : ", ", file, p.bytes, p.hash);
  }
  return print;
}

}  // namespace

namespace {
/// The last file that a run writes when it takes its folder over: by then nothing of an earlier run is left that this one
/// does not go on from.
std::string taken_over(const Config& config) {
  std::error_code none;
  const fs::path file = fs::path(config.trainer.run_dir) / "config.resolved.cfg";
  const auto time = fs::last_write_time(file, none);
  return none ? "" : std::to_string(time.time_since_epoch().count());
}
}  // namespace

int ranks_of_machine(const ModelSection& model) {
  return std::max<int>(1, static_cast<int>(visible_gpus(model.device).size()));
}

int start_ranks(const std::string& config, const std::vector<std::string>& settings,
                const std::vector<std::string>& arguments, bool plans, int restarts,
                const std::function<int(Ranks&)>& run) {
  const GivenRanks given = given_ranks();
  if (given.by.empty() && !plans) {
    Config own = load_config(config, settings);
    if (own.parallel.dp == 0) resolve_ranks(own.parallel, ranks_of_machine(own.model));
    if (const int ranks = own.parallel.ranks(); ranks > 1) {
      const auto begun = [&own, before = taken_over(own)] { return taken_over(own) != before; };
      return launch_ranks("dapo_train", ranks, arguments, {restarts, begun});
    }
    if (restarts > 0) fail_input("--restarts: this run has one rank, which nobody watches; leave --restarts out");
  }
  return run_as_rank("dapo_train", given, [&](Ranks& ranks) {
    if (!given.by.empty() && restarts > 0 && !started_by_launch())
      throw AgreedError(kExitUsage, fmt::format("--restarts: {0} started this rank, and would have to start it again; "
                                                "leave --restarts out{1}",
                                                given.by,
                                                given.by == "srun" ? ", and see sbatch --requeue"
                                                                   : ", or let dapo_train start its ranks"));
    ranks.compare({{"build", version_text(), "start the same program on all machines"}});
    Config own = ranks.comm().together([&] { return load_config(config, settings); });
    ranks.compare(setting_facts(own));
    ranks.comm().together([&] { resolve_ranks(own.parallel, ranks.size()); });
    if (!plans) ranks.expect_size(own.parallel.ranks());
    ranks.watch(own.parallel.hang_seconds);
    ranks.phase("load");
    return run(ranks);
  });
}

ChosenBackend rank_backend(const Config& config, Ranks& ranks) {
  const ModelSection& model = config.model;
  if (ranks.size() == 1) return make_backend(model.device, model.dtype, model.threads);
  Comm& comm = ranks.comm();
  const std::vector<VisibleGpu> gpus = comm.together([&] { return visible_gpus(model.device); });
  const GpuShare own = assign_gpu(comm, gpus, config.parallel.transport == Transport::host);
  if (own.gpu >= 0) {
    bind_near(gpus[static_cast<size_t>(own.gpu)]);
    ranks.share_cores();
  }
  return comm.together([&] { return make_backend(model.device, model.dtype, model.threads, own); });
}

void connect_devices(ChosenBackend& chosen, const Grid& grid, Transport transport) {
  if (grid.tensor.size() > 1) chosen.tensor = make_device_comm(*chosen.backend, grid.tensor, transport);
  if (grid.data.size() > 1) chosen.data = make_device_comm(*chosen.backend, grid.data, transport);
}

void compare_inputs(Ranks& ranks, const Dataset& data, const std::string& weights, const Backend& backend) {
  if (ranks.size() == 1) return;
  ranks.compare(
      {{"device", device_kind(backend.describe()), "use machines of one kind, or give model.device and model.dtype"},
       {"set of training rows", fmt::format("{} rows, hash {:016x}", data.size(), data.fingerprint()),
        "copy data.train_files to all machines"},
       {"model", model_print(weights), "copy model.path to all machines"}});
}

}  // namespace dapo
