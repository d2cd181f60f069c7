#include "host/app/resume.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "core/check.h"
#include "core/files.h"
#include "host/app/run_folder.h"
#include "host/train/settings_changes.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

/// The newest undamaged checkpoint of a run. Error (exit 2) if there are only damaged ones.
std::optional<Checkpoint> newest_good(const std::string& run, Begin& begin) {
  const std::vector<Checkpoint> all = checkpoints_of(run);
  for (const Checkpoint& c : all) {
    const std::string damage = find_damage(c.folder);
    if (damage.empty()) return c;
    begin.set_aside.push_back(c);
    begin.notes.push_back(fmt::format("{}: damaged, so the one before it is taken: {}", c.folder, damage));
  }
  if (all.empty()) return std::nullopt;
  fail_input("{}: no checkpoint can be read: {}; give --overwrite to begin anew", run, fmt::join(begin.notes, "; "));
}

/// Refuses settings that would change the steps to come; notes the others.
void compare_settings(const RunState& state, const Config& config, const std::string& folder,
                      std::vector<std::string>& notes) {
  std::vector<std::string> refused;
  for (const SettingChange& c : changed_settings(state.settings, config)) {
    const std::string text = fmt::format("{} = {} (was {})", c.key, c.now, c.before);
    // That mode weighs a token by its pack, and other ranks have other packs.
    const bool weighs_by_pack = (c.key == "parallel.dp" || c.key == "parallel.tp") &&
                                config.actor.loss_agg_mode == LossAgg::token_mean_per_micro_batch;
    if (!c.harmless || weighs_by_pack)
      refused.push_back(text);
    else if (c.key == "model.device" || c.key == "parallel.dp" || c.key == "parallel.tp")
      notes.push_back(text + ": sums are rounded in another order there");
    else if (c.key == "trainer.total_steps" && config.actor.lr_schedule != LrSchedule::constant)
      notes.push_back(text + ": the learning rate now ends there");
  }
  if (!refused.empty())
    fail_input(
        "{}: the run was made with other settings: {}; take the old ones back, or begin a new run with another "
        "trainer.run_dir or with --overwrite",
        folder, fmt::join(refused, ", "));
}

}  // namespace

Begin find_begin(const Config& config, const std::string& resume, Overwrite overwrite) {
  Begin begin;
  const std::string& run = config.trainer.run_dir;
  std::error_code none;
  const bool holds_run = is_our_folder(run) && !fs::exists(run + "/config.json", none);  // that would be a model's
  if (resume != "auto" && resume != "no") {
    const std::string from = expand_home(resume);
    begin.checkpoint = newest_good(from, begin);
    if (!begin.checkpoint) {
      begin.checkpoint = checkpoint_at(from);
      if (const std::string damage = find_damage(from); !damage.empty()) fail_input("{}: damaged: {}", from, damage);
    }
    // Going on in the same run from its newest checkpoint loses nothing; any other choice drops what run_dir holds.
    const std::vector<Checkpoint> there = checkpoints_of(run);
    const auto same = std::ranges::find_if(
        there, [&](const Checkpoint& c) { return fs::equivalent(c.folder, begin.checkpoint->folder, none); });
    begin.replaces = same == there.end();
    if (!begin.replaces) begin.dropped.assign(there.begin(), same);
    RunFolder::check(config, begin.dropped.empty() && !begin.replaces ? Overwrite::yes : overwrite);
  } else if (resume == "auto" && holds_run && overwrite == Overwrite::no) {
    RunFolder::check(config, Overwrite::yes);
    begin.checkpoint = newest_good(run, begin);
    begin.replaces = !begin.checkpoint;
    if (!begin.checkpoint && fs::exists(run + "/model", none))
      fail_input(
          "{}: already holds a run that ended, but no checkpoint to go on from; choose another folder with --set "
          "trainer.run_dir=..., or give --overwrite",
          run);
    if (!begin.checkpoint)
      begin.notes.push_back(fmt::format("{}: ended before its first checkpoint: begins anew", run));
  } else {
    RunFolder::check(config, overwrite);
    begin.replaces = true;
  }
  if (!begin.checkpoint) return begin;
  begin.state = read_state(begin.checkpoint->folder);
  compare_settings(begin.state, config, begin.checkpoint->folder, begin.notes);
  return begin;
}

Begin read_begin(const Config& config, const std::string& folder) {
  Begin begin;
  const std::string from = expand_home(folder);
  if (const std::string damage = find_damage(from); !damage.empty()) fail_input("{}: {}", from, damage);
  begin.checkpoint = Checkpoint{0, true, from};
  begin.state = read_state(from);
  compare_settings(begin.state, config, from, begin.notes);
  return begin;
}

void tidy_checkpoints(const Begin& begin) {
  std::error_code none;
  for (const Checkpoint& c : begin.set_aside) fs::rename(c.folder, c.folder + ".damaged", none);
  for (const Checkpoint& c : begin.dropped) remove_listed(c.folder);
}

void check_same_data(const RunState& state, uint64_t data, uint64_t prompts) {
  if (state.data != data)
    fail_input(
        "data.train_files: not the rows that the run was begun with, so its place in them means nothing; take the old "
        "files back, or begin a new run with another trainer.run_dir or with --overwrite");
  if (state.prompts != prompts)
    fail_input(
        "the prompts are not those that the run was begun with, though the rows are: the tokenizer or the chat "
        "template in model.path has changed; take the old one back, or begin a new run");
}

}  // namespace dapo
