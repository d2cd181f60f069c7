#include "model/folder.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <vector>

#include "core/check.h"
#include "core/files.h"
#include "core/safetensors.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

/// Names of the files (or folders) in a folder, sorted; empty if it cannot be read.
std::vector<std::string> names_in(const fs::path& folder, bool folders) {
  std::vector<std::string> names;
  std::error_code error, ignored;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (entry.is_directory(ignored) == folders) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// A file of a trainer's state, not of weights.
bool is_state(const std::string& name) {
  for (const char* start : {"training_args", "optimizer", "scheduler", "scaler", "rng_state"})
    if (name.starts_with(start)) return true;
  return false;
}

/// The first file with weights in a format that cannot be read; "" if there is none.
std::string other_weights(const fs::path& folder) {
  for (const std::string& name : names_in(folder, false))
    for (const char* ending :
         {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".npz"})
      if (name.ends_with(ending) && !is_state(name)) return name;
  return "";
}

constexpr const char* kMerge =
    "a LoRA adapter, not a model: merge it into its base model first (peft: AutoPeftModelForCausalLM.from_pretrained("
    "'{0}').merge_and_unload().save_pretrained('{0}-merged')), together with the tokenizer's files";

std::string how_to_convert(const std::string& folder, const std::string& name) {
  if (name.starts_with("adapter_")) return fmt::format(fmt::runtime(kMerge), folder);
  if (name.ends_with(".safetensors"))
    return fmt::format("{}: rename it to {} if it is the whole model", name, kSafetensorsFile);
  if (name.ends_with(".gguf") || name.ends_with(".ggml"))
    return fmt::format("{}, weights in llama.cpp's format: use the model's safetensors folder instead", name);
  return fmt::format(
      "{}, but only safetensors are read: convert it with python3 -c \"from transformers import "
      "AutoModelForCausalLM as M; M.from_pretrained('{}').save_pretrained('{}')\"",
      name, folder, folder);
}

/// Subfolders that have this file, at most two levels down: "checkpoint-500", "snapshots/0123".
std::vector<std::string> below(const fs::path& folder, const char* file) {
  std::vector<std::string> found;
  for (const std::string& a : names_in(folder, true)) {
    if (has_entry(folder / a / file)) found.push_back(a);
    for (const std::string& b : names_in(folder / a, true))
      if (has_entry(folder / a / b / file)) found.push_back(a + "/" + b);
  }
  return found;
}

std::string first_names(std::vector<std::string> names) {
  const bool more = names.size() > 3;
  if (more) names.resize(3);
  return fmt::format("{}{}", fmt::join(names, ", "), more ? ", ..." : "");
}

}  // namespace

bool has_weights(const std::string& folder) {
  if (has_entry(fs::path(folder) / kSafetensorsFile) || has_entry(fs::path(folder) / kSafetensorsIndex) ||
      !shards_in(folder).empty())
    return true;
  std::string name = other_weights(folder);
  if (has_entry(fs::path(folder) / "adapter_config.json")) name = "adapter_config.json";
  if (!name.empty()) fail_input("{}: holds {}", folder, how_to_convert(folder, name));
  std::vector<std::string> inner = below(folder, kSafetensorsFile);
  const auto sharded = below(folder, kSafetensorsIndex);
  inner.insert(inner.end(), sharded.begin(), sharded.end());
  if (!inner.empty()) fail_input("{}: no weights in it, but in {}: name that folder", folder, first_names(inner));
  return false;
}

std::string why_no_model(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    if (has_entry(path) && !fs::exists(path, ignored)) return "a dangling link: download the model again";
    return fmt::format("a file: name the folder that holds it ({}), with config.json, weights and tokenizer",
                       fs::absolute(path).parent_path().string());
  }
  const std::string none = "no config.json in it";
  if (const fs::path config = fs::path(path) / "config.json"; has_entry(config))
    return fmt::format("config.json is {}", open_error(config.string(), ENOENT));
  if (has_entry(fs::path(path) / "adapter_config.json")) return fmt::format(fmt::runtime(kMerge), path);
  if (const auto inner = below(path, "config.json"); !inner.empty())
    return fmt::format("{}, but in {}: name that folder", none, first_names(inner));
  const fs::path parent = fs::absolute(path).lexically_normal().parent_path();
  if (const auto up = fs::path(path).has_filename() ? parent : parent.parent_path(); has_entry(up / "config.json"))
    return fmt::format("{}, but in the folder above it, {}: name that one", none, up.string());
  if (const std::string name = other_weights(path); !name.empty() && !name.ends_with(".safetensors"))
    return fmt::format("{}; it holds {}", none, how_to_convert(path, name));
  return none + "; a Hugging Face model folder has one beside its weights";
}

}  // namespace dapo
