// Presets and the KL's reference, as a user sees them.
#include "tests/host/app/cli.h"

namespace dapo {
namespace {

class ObjectivesCli : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (IsSkipped()) return;
    make_model();
    write("train.cfg",
          "[model]\npath = \"tuned\"\nthreads = 1\n[data]\ntrain_files = \"data/train.jsonl\"\nprompt_template = "
          "\"raw\"\nmax_prompt_length = 48\nmax_response_length = 8\ntrain_batch_size = 2\n[rollout]\nn = "
          "4\n[actor]\nppo_mini_batch_size = 2\n[reward]\noverlong_buffer_len = 4\n[trainer]\ntotal_steps = 1\n");
  }
};

TEST_F(ObjectivesCli, ARunWithAReferenceShowsItsCostsAndItsKl) {
  const Ran plan = run("dapo_train", "train.cfg --plan --set algorithm.preset=grpo");
  ASSERT_EQ(plan.code, 0) << plan.err;
  EXPECT_NE(plan.out.find("clip (preset grpo), advantages grpo, seq-mean-token-mean, 0.04 x KL (k3) to tuned"),
            std::string::npos)
      << plan.out;
  EXPECT_NE(plan.out.find("tuned, frozen; one forward pass of every response a step"), std::string::npos)
      << plan.out;
  EXPECT_EQ(run("dapo_train", "train.cfg --plan").out.find("frozen"), std::string::npos);

  const Ran ran = run("dapo_train", "train.cfg --set algorithm.preset=grpo --set model.reference=model2");
  EXPECT_EQ(ran.code, 2);
  EXPECT_NE(ran.err.find("not here: model2"), std::string::npos) << ran.err;
  for (const char* preset : {"grpo", "rloo", "gspo"}) {
    const Ran r = run("dapo_train", std::string("train.cfg --set algorithm.preset=") + preset +
                                        " --set trainer.run_dir=runs/" + preset);
    ASSERT_EQ(r.code, 0) << preset << r.err;
    const std::string metrics = slurp(folder_ / "runs" / preset / "metrics.jsonl"),
                      resolved = slurp(folder_ / "runs" / preset / "config.resolved.cfg");
    EXPECT_EQ(metrics.find("\"update/kl_ref\": null") != std::string::npos, std::string(preset) == "gspo") << metrics;
    EXPECT_NE(resolved.find(std::string("preset = \"") + preset + "\"\n"), std::string::npos);
    EXPECT_NE(resolved.find("filter_groups = false\n"), std::string::npos);
  }
}

TEST_F(ObjectivesCli, ObjectivesThatDoNotDoWhatTheirNameSaysAreNoted) {
  const auto plan = [&](const std::string& settings) { return run("dapo_train", "train.cfg --plan " + settings).out; };
  EXPECT_NE(plan("--set model.reference=tuned").find("actor.kl_loss_coef = 0: there is no KL"), std::string::npos);
  EXPECT_NE(plan("--set actor.kl_loss_coef=1 --set actor.kl_loss_type=k1").find("its expected gradient is 0"),
            std::string::npos);
  EXPECT_NE(plan("--set actor.policy_loss=gspo").find("\"seq-mean-token-mean\" only, not with \"token-mean\""),
            std::string::npos);
  EXPECT_EQ(plan("--set algorithm.preset=rloo").find("off-policy; set"), std::string::npos);
  EXPECT_NE(plan("--set algorithm.preset=rloo --set actor.ppo_epochs=2").find("ppo_mini_batch_size = 2"),
            std::string::npos);
}

}  // namespace
}  // namespace dapo
