// The presets of algorithm.preset: what each sets, as its paper has it. Explained in docs/objectives.md.
#include <algorithm>

#include "core/choices.h"
#include "host/train/settings_table.h"

namespace dapo {

const std::vector<PresetInfo>& all_presets() {
  static const std::vector<PresetInfo> presets = {
      {Preset::dapo, "DAPO, arXiv 2503.14476: the defaults", {}},
      {Preset::grpo,
       "GRPO, DeepSeekMath, arXiv 2402.03300",
       {"actor.clip_ratio_high=0.2", "actor.clip_ratio_c=0", "actor.loss_agg_mode=seq-mean-token-mean",
        "actor.kl_loss_coef=0.04", "actor.kl_loss_type=k3", "algorithm.filter_groups=false",
        "reward.overlong_buffer=false"}},
      {Preset::dr_grpo,
       "Dr. GRPO, arXiv 2503.20783",
       {"actor.clip_ratio_high=0.2", "actor.clip_ratio_c=0", "actor.loss_agg_mode=seq-mean-token-sum-norm",
        "algorithm.norm_adv_by_std=false", "algorithm.filter_groups=false", "reward.overlong_buffer=false"}},
      {Preset::gspo,
       "GSPO, arXiv 2507.18071",
       {"actor.policy_loss=gspo", "actor.clip_ratio_low=3e-4", "actor.clip_ratio_high=4e-4", "actor.clip_ratio_c=0",
        "actor.loss_agg_mode=seq-mean-token-mean", "algorithm.filter_groups=false", "reward.overlong_buffer=false"}},
      {Preset::cispo,
       "CISPO, MiniMax-M1, arXiv 2506.13585; the cap of 5 from ScaleRL, arXiv 2510.13786",
       {"actor.policy_loss=cispo", "actor.clip_ratio_low=1", "actor.clip_ratio_high=4"}},
      {Preset::rloo,
       "REINFORCE with leave-one-out baseline, arXiv 2402.14740; the KL's coefficient from TRL",
       {"actor.policy_loss=reinforce", "actor.loss_agg_mode=seq-mean-token-sum", "actor.kl_loss_coef=0.05",
        "actor.kl_loss_type=k2", "algorithm.adv_estimator=rloo", "algorithm.filter_groups=false",
        "reward.overlong_buffer=false"}},
      {Preset::reinforce_plus_plus,
       "REINFORCE++ with baseline, arXiv 2501.03262",
       {"actor.clip_ratio_high=0.2", "actor.clip_ratio_c=0", "algorithm.adv_estimator=reinforce_plus_plus_baseline",
        "algorithm.filter_groups=false", "reward.overlong_buffer=false"}},
  };
  return presets;
}

std::string reference_folder(const Config& config) {
  if (config.actor.kl_loss_coef == 0) return "";
  return config.model.reference.empty() ? config.model.path : config.model.reference;
}

}  // namespace dapo
