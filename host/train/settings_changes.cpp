#include "host/train/settings_changes.h"

#include <algorithm>
#include <map>
#include <string_view>

namespace dapo {
namespace {

/// "section.field" -> value.
std::map<std::string, std::string> values_of(const std::string& text) {
  std::map<std::string, std::string> values;
  std::string section;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.starts_with('['))
      section = line.substr(1, line.find(']') - 1);
    else if (const size_t equals = line.find(" = "); equals != std::string::npos)
      values[section + "." + line.substr(0, equals)] = line.substr(equals + 3);
  }
  return values;
}

bool is_harmless(std::string_view key) {
  // Files and folders are compared by what is in them; draws and sums do not depend on batching, paging or threads.
  constexpr std::string_view kHarmless[] = {"model.path",
                                            "model.device",
                                            "model.threads",
                                            "model.recompute",
                                            "model.offload_optimizer",
                                            "data.train_files",
                                            "data.val_files",
                                            "rollout.max_num_seqs",
                                            "rollout.max_num_batched_tokens",
                                            "rollout.page_size",
                                            "rollout.kv_memory_gb",
                                            "rollout.collect_every",
                                            "reward.workers",
                                            "reward.timeout",
                                            "trainer.total_steps",
                                            "trainer.run_dir",
                                            "trainer.save_every",
                                            "trainer.keep",
                                            "trainer.keep_best",
                                            "trainer.log_rollouts",
                                            "trainer.nonfinite_patience",
                                            "trainer.stuck_patience",
                                            "parallel.dp",
                                            "parallel.tp",
                                            "parallel.transport",
                                            "parallel.zero_stage",
                                            "parallel.overlap",
                                            "parallel.hang_seconds"};
  return key.starts_with("eval.") || key.starts_with("sft.") ||
         std::ranges::find(kHarmless, key) != std::end(kHarmless);
}

}  // namespace

std::vector<SettingChange> changed_settings(const std::string& before, const Config& now) {
  const auto old = values_of(before), fresh = values_of(config_text(now)), defaults = values_of(config_text({}));
  std::vector<SettingChange> out;
  for (const auto& [key, value] : fresh) {
    const auto it = old.find(key);
    const std::string& was = it != old.end() ? it->second : defaults.at(key);
    if (was != value) out.push_back({key, was, value, is_harmless(key)});
  }
  return out;
}

}  // namespace dapo
