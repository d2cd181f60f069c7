// A model loaded on its device, as every program and command needs it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/comm.h"
#include "host/app/backends.h"
#include "model/folder.h"
#include "model/weights.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

struct Session {
  std::unique_ptr<Backend> backend;
  std::shared_ptr<Comm> tensor;  ///< ChosenBackend::tensor; not null
  std::shared_ptr<Comm> data;    ///< ChosenBackend::data
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<Weights> weights;
  std::string folder;
  std::string device;  ///< one line: what was chosen and why
};

enum class Start : uint8_t {
  folder,           ///< with the folder's weights
  folder_or_random  ///< with weights ~ Normal(0, std) if the folder has no weight files
};

enum class Tokens : uint8_t {
  need,
  maybe  ///< Session::tokenizer is null if the folder has none: for commands that take ids
};

/// Loads the folder's tokenizer and model onto the device. Error (exit 2) names what is missing or does not match
/// (more tokens in the tokenizer than in the model, an eos id outside the vocabulary); exit 3 if the weights do not fit
/// in memory. `weights_from`: another folder that holds the weights, of the same shapes; "" for `folder` itself.
Session open_session(const std::string& folder, ChosenBackend chosen, Start start = Start::folder, uint64_t seed = 1,
                     float init_std = 0, Tokens tokens = Tokens::need, const std::string& weights_from = "");

/// The weights of `folder`, frozen, beside those of the session; null if it is "". Error (exit 2) unless they have the
/// shapes of the session's.
std::unique_ptr<Weights> open_reference(const std::string& folder, const Session& session);

struct FoundModel {
  ModelConfig config;
  bool downloaded;  ///< false: the folder does not exist, but its name is that of a known model
};
/// Shapes of the model that `path` names: from the folder's config.json, otherwise those of a known model
/// ("Qwen/Qwen2.5-32B", with or without "-Instruct"). Error (exit 2) says how to get the model.
FoundModel find_model(const std::string& path);
/// Copies the tokenizer's files and chat templates of a model folder.
void copy_tokenizer(const std::string& from, const std::string& to);
/// Writes weights, configs and the tokenizer's files of `from` into `to`, an empty folder (FreshFolder). Of tensor-parallel
/// ranks, which `tensor` connects, the first calls it while the others lend_parts(). Null: one rank.
void write_model_folder(const Weights& weights, const std::string& from, const std::string& to, Comm* tensor = nullptr);

}  // namespace dapo
