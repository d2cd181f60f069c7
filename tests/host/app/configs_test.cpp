// Every file in configs/ is a run that starts: checked with a toy model and a few rows in place of the real ones.
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "host/train/settings.h"
#include "model/config.h"
#include "tests/host/app/cli.h"
#include "tokenizer/tokenizer.h"

namespace dapo {
namespace {

/// The folder of the project's configs; tests run in the project's root.
fs::path configs() {
  return fs::absolute("configs");
}

class Configs : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (!fs::exists(configs())) GTEST_SKIP() << "skipped: configs/ is not here; run tests in the project's root";
  }
  /// A model folder at `path` with the shapes of the demo's and positions for any of the configs.
  void stand_in_model(const std::string& path) {
    ASSERT_EQ(run("dapo", "chain model_" + std::to_string(++models_)).code, 0);
    const fs::path made = folder_ / ("model_" + std::to_string(models_)), to = folder_ / path;
    std::string config = slurp(made / "model/config.json");
    config = std::regex_replace(config, std::regex("\"max_position_embeddings\": [0-9]+"),
                                "\"max_position_embeddings\": 32768");
    ASSERT_NE(config.find("32768"), std::string::npos) << config;
    write("stand_in.cfg", "[model]\npath = \"" + (made / "model").string() +
                              "\"\nthreads = 1\n[data]\nprompt_template = \"raw\"\nmax_prompt_length = 48\n"
                              "max_response_length = 48\n[sft]\nfiles = \"" +
                              (made / "data/skill.jsonl").string() + "\"\nout = \"" + path +
                              "\"\nbatch_size = 1\nsteps = 1\n");
    std::ofstream(made / "model/config.json") << config;
    ASSERT_EQ(run("dapo", "sft stand_in.cfg").code, 0);
    // as the Qwen models have one
    std::string tokenizer = slurp(to / "tokenizer_config.json");
    const size_t end = tokenizer.rfind('}');
    tokenizer.insert(end,
                     ", \"chat_template\": \"{% for m in messages %}<{{ m.role }}>{{ m.content }}\\n{% endfor %}"
                     "{% if add_generation_prompt %}<assistant>{% endif %}\"");
    std::ofstream(to / "tokenizer_config.json") << tokenizer;
  }
  /// A row that the config's verifier and template accept, at the place of a file. Parquet files are stood in for by
  /// JSON lines of another name, since what is in them is not what is tested.
  std::string stand_in_rows(const Config& c, const std::string& path) {
    const std::string name = path.ends_with(".parquet") ? path.substr(0, path.size() - 7) + "jsonl" : path;
    const bool countdown = c.reward.verifier == "countdown";
    std::string rows;
    for (int i = 1; i <= 40; ++i)
      rows += countdown
                  ? fmt::format(
                        "{{\"prompt\": \"Reach {0}.\", \"reward_model\": {{\"ground_truth\": "
                        "{{\"target\": {0}, \"numbers\": [{0}, 1, 1]}}}}}}\n",
                        i)
                  : fmt::format("{{\"prompt\": \"{0}+{0}=\", \"answer\": \"{1}\", \"response\": \"{1}\"}}\n", i, 2 * i);
    write(name, rows);
    return name;
  }
  int models_ = 0;
};

TEST_F(Configs, EveryOneChecksOnStandIns) {
  size_t seen = 0;
  for (const auto& entry : fs::directory_iterator(configs())) {
    const std::string path = entry.path().string(), name = entry.path().filename().string();
    if (!path.ends_with(".cfg")) continue;
    ++seen;
    const bool sft = slurp(path).find("\n[sft]") != std::string::npos;
    const Config c = load_config(path, {}, sft ? Use::sft : Use::train);
    if (!fs::exists(folder_ / c.model.path)) stand_in_model(c.model.path);
    std::string settings;
    const auto stand_in = [&](const char* key, const std::vector<std::string>& files) {
      for (const std::string& file : files) settings += fmt::format(" --set {}={}", key, stand_in_rows(c, file));
    };
    if (sft) {
      stand_in("sft.files", c.sft.files);
      settings += " --set sft.out=checked";  // another config's model may be there
    }
    if (!sft) stand_in("data.train_files", c.data.train_files);
    if (!sft) stand_in("data.val_files", c.data.val_files);
    const std::string line = (sft ? "sft " : "") + path + " --check" + settings;
    const Ran r = run(sft ? "dapo" : "dapo_train", line);
    EXPECT_EQ(r.code, 0) << name << "\n" << r.out << r.err;
    EXPECT_NE(r.out.find("everything loads"), std::string::npos) << name << "\n" << r.out << r.err;
  }
  EXPECT_GE(seen, 9u);
}

TEST_F(Configs, TheNamedOnesExistAndFitWhatTheirCommentsSay) {
  for (const char* name :
       {"aime.cfg", "aime_7b.cfg", "aime_1.5b.cfg", "math.cfg", "gsm8k.cfg", "countdown.cfg", "demo.cfg"})
    EXPECT_TRUE(fs::exists(configs() / name)) << name;
  const auto plan = [&](const std::string& name, const std::string& cards) {
    return run("dapo_train", (configs() / name).string() + " --plan --for " + cards).code;
  };
  EXPECT_EQ(plan("aime.cfg", "8xh100"), 0);
  EXPECT_EQ(plan("aime.cfg", "h100"), 3);
  EXPECT_EQ(plan("aime_7b.cfg", "h200"), 0);
  EXPECT_EQ(plan("aime_7b.cfg", "8xh100"), 0);
  EXPECT_EQ(plan("aime_1.5b.cfg", "h100"), 0);
  EXPECT_EQ(plan("math.cfg", "a100"), 0);
  EXPECT_EQ(plan("gsm8k.cfg", "rtx4090"), 0);
  EXPECT_EQ(plan("countdown.cfg", "rtx4090"), 0);
}

TEST_F(Configs, EveryLengthHasItsUnit) {  // a number of tokens, prompts or steps says which
  for (const char* name :
       {"aime.cfg", "aime_7b.cfg", "aime_1.5b.cfg", "math.cfg", "gsm8k.cfg", "countdown.cfg", "demo.cfg"}) {
    std::ifstream in(configs() / name);
    for (std::string line; std::getline(in, line);)
      for (const char* key : {"max_prompt_length", "max_response_length", "train_batch_size", "overlong_buffer_len",
                              "ppo_mini_batch_size", "lr_warmup_steps", "every", "save_every"})
        if (line.starts_with(std::string(key) + " ")) {
          EXPECT_NE(line.find("# "), std::string::npos) << name << ": " << line;
        }
  }
}

}  // namespace
}  // namespace dapo
