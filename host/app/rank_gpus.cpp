#include "host/app/rank_gpus.h"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "core/check.h"
#include "host/parallel/ranks.h"

namespace dapo {
namespace {

[[noreturn]] void refuse(size_t rank, const std::string& host, const std::string& text) {
  throw AgreedError(kExitUsage, fmt::format("rank {} on {} {}", rank, host, text));
}

}  // namespace

std::vector<GpuShare> assign_gpus(const std::vector<RankGpus>& ranks, bool shared) {
  const auto with = std::find_if(ranks.begin(), ranks.end(), [](const RankGpus& r) { return !r.uuids.empty(); });
  if (with == ranks.end()) return std::vector<GpuShare>(ranks.size());
  std::vector<GpuShare> taken;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const auto& [host, uuids] = ranks[r];
    if (uuids.empty())
      refuse(
          r, host,
          fmt::format("sees no GPU, rank {} on {} does; give every rank a GPU (CUDA_VISIBLE_DEVICES, nvidia-smi), or "
                      "use --device cpu",
                      with - ranks.begin(), with->host));
    const auto alike = [&, &host = host, &uuids = uuids](const RankGpus& o) {
      return o.host == host && o.uuids == uuids;
    };
    const auto here =
        static_cast<size_t>(std::count_if(ranks.begin(), ranks.begin() + static_cast<ptrdiff_t>(r), alike));
    if (here >= uuids.size() && !shared)
      refuse(r, host,
             fmt::format("has no GPU left: {} ranks see {} there; start at most one rank a GPU, or use --device cpu "
                         "or parallel.transport=host",
                         std::count_if(ranks.begin(), ranks.end(), alike), uuids.size()));
    const std::string& own = uuids[here % uuids.size()];
    for (size_t o = 0; o < r; ++o)
      if (!shared && ranks[o].host == host && ranks[o].uuids[static_cast<size_t>(taken[o].gpu)] == own)
        refuse(r, host,
               fmt::format("would run on {}, as rank {} does; give each rank a GPU of its own (CUDA_VISIBLE_DEVICES, "
                           "srun --gpus-per-task)",
                           own, o));
    taken.push_back({static_cast<int>(here % uuids.size())});
  }
  const auto card = [&](size_t r) {
    return std::pair(ranks[r].host, ranks[r].uuids[static_cast<size_t>(taken[r].gpu)]);
  };
  for (size_t r = 0; r < ranks.size(); ++r)
    for (size_t o = 0; o < ranks.size(); ++o) taken[r].ranks += o != r && card(o) == card(r);
  return taken;
}

GpuShare assign_gpu(Comm& hosts, const std::vector<VisibleGpu>& gpus, bool shared) {
  std::string mine = host_name();
  for (const VisibleGpu& gpu : gpus) mine += "\n" + gpu.uuid;
  std::vector<RankGpus> ranks;
  for (const std::string& text : hosts.all_gather_bytes(mine)) {
    std::vector<std::string> lines;
    for (size_t at = 0; at <= text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      lines.push_back(text.substr(at, end - at));
      at = end + 1;
    }
    ranks.push_back({lines[0], {lines.begin() + 1, lines.end()}});
  }
  return assign_gpus(ranks, shared)[static_cast<size_t>(hosts.rank())];
}

std::optional<cpu_set_t> parse_cores(const std::string& text) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  const char *at = text.data(), *const end = text.data() + text.find_last_not_of(" \n") + 1;
  while (at < end) {
    unsigned first = 0, last = 0;
    auto [rest, error] = std::from_chars(at, end, first);
    last = first;
    if (error == std::errc() && rest < end && *rest == '-') {
      const auto range = std::from_chars(rest + 1, end, last);
      rest = range.ptr, error = range.ec;
    }
    if (error != std::errc() || first > last || last >= CPU_SETSIZE || (rest < end && *rest != ','))
      return std::nullopt;
    for (unsigned core = first; core <= last; ++core) CPU_SET(core, &cores);
    at = rest + (rest < end ? 1 : 0);
  }
  return cores;
}

void bind_near(const VisibleGpu& gpu, const std::string& devices) {
  std::ifstream file(devices + "/" + gpu.pci + "/local_cpulist");
  std::string line;
  if (!std::getline(file, line)) return;
  const std::optional<cpu_set_t> near = parse_cores(line);
  if (!near) return;
  cpu_set_t own, both;
  CPU_ZERO(&own);
  if (sched_getaffinity(0, sizeof own, &own) != 0) return;
  CPU_AND(&both, &own, &*near);
  if (CPU_COUNT(&both) > 0) sched_setaffinity(0, sizeof both, &both);  // best effort: a rank runs anywhere
}

}  // namespace dapo
