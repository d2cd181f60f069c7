// Real-world inputs: hub snapshots (symbolic links), other kinds of weights, byte order marks, "~", configs of a
// model's folder.
#include <cctype>

#include "tests/host/app/cli.h"

namespace dapo {
namespace {

class Inputs : public CliTest {
 protected:
  void replace(const std::string& name, const std::string& from, const std::string& to) {
    std::string text = slurp(folder_ / name);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    write(name, text.replace(at, from.size(), to));
  }
};

TEST_F(Inputs, HubSnapshotsAndDanglingLinks) {
  make_model();
  const std::string draw = " --template raw --prompt \"1+2\" --temperature 0 --max-new-tokens 4";
  const Ran plain = run("dapo", "generate --model tuned" + draw);
  fs::create_directories(folder_ / "hub/snapshots/0123");
  fs::rename(folder_ / "tuned", folder_ / "hub/blobs");
  for (const auto& file : fs::directory_iterator(folder_ / "hub/blobs"))
    fs::create_symlink("../../blobs/" + file.path().filename().string(),
                       folder_ / "hub/snapshots/0123" / file.path().filename());
  const Ran linked = run("dapo", "generate --model hub/snapshots/0123" + draw);
  EXPECT_EQ(linked.code, 0) << linked.err;
  EXPECT_EQ(linked.out, plain.out);
  const Ran home =
      shell("HOME=$PWD/hub " + (programs_ / "dapo").string() + " generate --model=~/snapshots/0123" + draw);
  EXPECT_EQ(home.out, plain.out) << home.err;
  expect_usage_error("dapo", "generate --model hub --prompt x", "no config.json in it, but in blobs, snapshots/0123");
  expect_usage_error("dapo", "generate --model hub/blobs/config.json --prompt x",
                     "a file: name the folder that holds it");
  write("hub/blobs/model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  expect_usage_error("dapo", "generate --model hub/snapshots/0123 --prompt x", "model.safetensors: a Git LFS pointer");
  write("hub/blobs/tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  expect_usage_error("dapo", "tokenize --model hub/blobs -", "tokenizer.json: a Git LFS pointer", "{\"text\": \"x\"}");
  fs::remove(folder_ / "hub/blobs/tokenizer.json");
  for (const char* command : {"generate --template raw --prompt x", "tokenize -"})
    expect_usage_error("dapo", std::string(command) + " --model hub/snapshots/0123", "tokenizer.json: a link to",
                       "{\"text\": \"x\"}");
  write("hub/blobs/tokenizer.model", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  expect_usage_error("dapo", "tokenize --model hub/blobs -", "tokenizer.model: a Git LFS pointer", "{\"text\": \"x\"}");
  fs::remove(folder_ / "hub/blobs/config.json");
  expect_usage_error("dapo", "generate --model hub/snapshots/0123 --prompt x", "where nothing is");
}

/// Half of a download is not a model without a template, or without stop ids.
TEST_F(Inputs, DanglingLinksAreNotAbsentFiles) {
  for (const char* name :
       {"chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"}) {
    ASSERT_EQ(run("dapo", "chain --overwrite .").code, 0);
    fs::remove(folder_ / "model" / name);
    fs::create_symlink("nowhere", folder_ / "model" / name);
    if (std::string_view(name) == "special_tokens_map.json") write("model/tokenizer_config.json", "{}");
    write("sft.cfg", sft_config("model", "tuned", 1));
    expect_usage_error("dapo", "sft sft.cfg --set data.prompt_template=auto",
                       std::string(name) + ": a link to nowhere");
    fs::remove(folder_ / "model" / name);
  }
}

TEST_F(Inputs, FineTuningDoesNotStartAtRandomIfThereAreUnreadableWeights) {
  ASSERT_EQ(run("dapo", "chain .").code, 0);
  write("sft.cfg", sft_config("model", "tuned", 1));
  write("model/pytorch_model.bin", "weights");
  expect_usage_error("dapo", "sft sft.cfg", "holds pytorch_model.bin, but only safetensors are read");
  expect_usage_error("dapo", "generate --model model --prompt x", "holds pytorch_model.bin");
  EXPECT_FALSE(fs::exists(folder_ / "tuned"));
  fs::remove(folder_ / "model/pytorch_model.bin");
  EXPECT_EQ(run("dapo", "sft sft.cfg").code, 0);
}

TEST_F(Inputs, ASavedModelKeepsItsFoldersFiles) {
  make_model();
  const std::string generation =
      "{\"do_sample\": true, \"temperature\": 0.7, \"top_k\": 20, \"eos_token_id\": [256, 257], \"pad_token_id\": 257}";
  write("tuned/generation_config.json", generation);
  write("tuned/chat_template.jinja", "{{ messages[0]['content'] }}");
  write("tuned/special_tokens_map.json", "{\"eos_token\": \"<|endoftext|>\"}");
  replace("tuned/config.json", "\"bos_token_id\": null", "\"bos_token_id\": 256,\n  \"sliding_window\": 512");
  const std::string config = slurp(folder_ / "tuned/config.json");
  write("again.cfg", sft_config("tuned", "again", 1));
  const Ran r = run("dapo", "sft again.cfg --dtype f32");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(slurp(folder_ / "again/generation_config.json"), generation);
  for (const char* name : {"chat_template.jinja", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"})
    EXPECT_EQ(slurp(folder_ / "again" / name), slurp(folder_ / "tuned" / name)) << name;
  std::string kept = slurp(folder_ / "again/config.json"), was = config;
  for (std::string* text : {&kept, &was})
    if (const size_t at = text->find("bfloat16"); at != std::string::npos) text->replace(at, 8, "float32");
  EXPECT_EQ(kept, was);
}

TEST_F(Inputs, ConfigsAsEditorsWriteThem) {
  write("a.cfg", "\xEF\xBB\xBF[model]\npath = \"nowhere\"\n[data]\ntrain_files = \"t.jsonl\"\n");
  expect_usage_error("dapo_train", "a.cfg", "nowhere: no such folder");
  write("b.cfg", "[model]\npath = ../qwen  # here\n[data]\ntrain_files = \"t\"\n");
  expect_usage_error("dapo_train", "b.cfg", "b.cfg:2: text needs quotes: path = \"../qwen\"");
  write("c.cfg", "[model]\npath = \"x\"\ndevice = cpu\n");
  expect_usage_error("dapo_train", "c.cfg", "c.cfg:3: text needs quotes: device = \"cpu\"");
  write("d.cfg", "[model]\nrecompute = True\n");
  expect_usage_error("dapo_train", "d.cfg", "d.cfg:2: ");
  write("home.cfg", "[model]\npath = \"~/m\"\n[data]\ntrain_files = \"t\"\n");
  const Ran r = shell("HOME=/home/of/me " + (programs_ / "dapo_train").string() + " home.cfg");
  EXPECT_NE(r.err.find("/home/of/me/m: no such folder"), std::string::npos) << r.err;
}

// As with vLLM's stop_token_ids: the token that ends a response is not part of its text, special or not.
TEST_F(Inputs, TheStopTokenIsNotText) {
  make_model();
  std::string all = "[256";
  for (int id = 0; id < 256; ++id) all += "," + std::to_string(id);
  write("tuned/generation_config.json", "{\"eos_token_id\": " + all + "]}");
  const Ran r = run("dapo", "generate --model tuned --template raw --prompt 1 --max-new-tokens 4");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("\"text\": \"\""), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\"finish_reason\": \"stop\""), std::string::npos) << r.out;
}

TEST_F(Inputs, APlanShowsTheMemoryItUses) {
  make_model();
  write("train.cfg", "[model]\npath = \"tuned\"\nthreads = 1\n[data]\ntrain_files = \"data/train.jsonl\"\n");
  const Ran r = run("dapo_train",
                    "train.cfg --plan --set rollout.kv_memory_gb=1000000 --set data.max_prompt_length=48 --set "
                    "data.max_response_length=48 --set reward.overlong_buffer=false");
  EXPECT_EQ(r.code, 0) << r.err;
  const size_t at = r.out.find("rollout.kv_memory_gb = 1e+06 is more than this machine's ");
  ASSERT_NE(at, std::string::npos) << r.out;
  const std::string line = r.out.substr(at, r.out.find('\n', at) - at);
  EXPECT_TRUE(std::isdigit(line[line.find(" GB: ") + 5]) && line.ends_with(" GB are used")) << line;
}

TEST_F(Inputs, CommandLinesOfOtherTrainers) {
  expect_usage_error("dapo_train", "x.cfg trainer.total_steps=3", "a setting is written --set trainer.total_steps=3");
  expect_usage_error("dapo_train", "--config x.cfg", "the config is a positional argument: dapo_train FILE.cfg");
  expect_usage_error("dapo_train", "--frobnicate", "see --help for the options");
}

TEST_F(Inputs, VerifyReadsGroundTruthsAsTrainingDoes) {
  const Ran r = run("dapo", "verify --verifier exact -",
                    "[{\"solution\": \"42\", \"ground_truth\": 42.0},\n"
                    "{\"solution\": \"1267650600228229401496703205376\", \"x\": NaN,\n"
                    " \"ground_truth\": 1267650600228229401496703205376},\n"
                    "{\"solution\": \"two\", \"ground_truth\": [\"2\", \"two\"]},\n"
                    "{\"solution\": \"2\", \"ground_truth\": [\"2\", \"two\"]},\n"
                    "{\"solution\": \"two\", \"ground_truth\": \"[\\\"2\\\", \\\"two\\\"]\"},\n"
                    "{\"solution\": \"3\", \"ground_truth\": [\"2\", \"two\"]}]\n");
  EXPECT_EQ(r.code, 0) << r.err;
  std::string acc;
  for (size_t at = 0; (at = r.out.find("\"acc\": ", at)) != std::string::npos;) acc += r.out[at += 7];
  EXPECT_EQ(acc, "tttttf") << r.out;
  expect_usage_error("dapo", "verify -", "<stdin>:1: \"ground_truth\" is a list with a number in it",
                     "{\"solution\": \"2\", \"ground_truth\": [1, 2]}");
  expect_usage_error("dapo", "verify rows.csv", "rows.csv: a CSV file");
}

}  // namespace
}  // namespace dapo
