// The readers that are fuzzed, one function for each target. Each reads one input: true if it is accepted, Error (exit 2) or
// false if it is refused.
#pragma once

#include <filesystem>
#include <string_view>

namespace dapo::fuzz {

/// A folder of this program, in memory where the machine has such a place.
const std::filesystem::path& scratch_folder();

bool read_safetensors(std::string_view input);
bool read_index(std::string_view input);
bool read_json(std::string_view input);
bool read_tokenizer(std::string_view input);
bool read_dataset(std::string_view input);
bool read_config(std::string_view input);
bool read_model_config(std::string_view input);
bool judge(std::string_view input);
bool render_chat(std::string_view input);
bool read_tokenizer_files(std::string_view input);
bool encode(std::string_view input);
bool read_metrics(std::string_view input);
bool read_manifest(std::string_view input);
bool read_run_state(std::string_view input);
/// A state.json that read_run_state takes.
std::string run_state_json();

}  // namespace dapo::fuzz
