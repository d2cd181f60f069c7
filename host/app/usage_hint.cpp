#include "host/app/usage_hint.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <vector>

#include "host/train/settings_names.h"

namespace dapo {

namespace {
/// Names that other programs give to these options and commands.
struct Alias {
  std::string_view other, name;
};
constexpr Alias kAliases[] = {{"max-tokens", "max-new-tokens"},
                              {"max-length", "max-new-tokens"},
                              {"num-samples", "n"},
                              {"num-return-sequences", "n"},
                              {"output", "out"},
                              {"input", "prompts"},
                              {"dataset", "data"},
                              {"tokenizer", "model"},
                              {"model-path", "model"},
                              {"model-name-or-path", "model"},
                              {"limit", "max-problems"},
                              {"lm-eval", "eval"},
                              {"finetune", "sft"},
                              {"encode", "tokenize"},
                              {"judge", "verify"},
                              {"grade", "verify"},
                              {"check", "doctor"},
                              {"plot", "report"}};

/// The name that is meant by `word`, or "".
std::string nearest(std::string word, const std::vector<std::string>& names) {
  std::ranges::replace(word, '_', '-');
  const auto known = [&](std::string_view name) { return std::ranges::find(names, name) != names.end(); };
  for (const Alias& a : kAliases)
    if (a.other == word && known(a.name)) return std::string(a.name);
  std::string found;
  size_t best = (word.size() < 5 ? 1 : std::max<size_t>(2, word.size() / 3)) + 1;  // two letters exchanged: 2
  for (const std::string& name : names) {
    const bool begins = word.size() > 2 && name.size() > 2 && (name.starts_with(word) || word.starts_with(name));
    const size_t d = begins ? 0 : edit_distance(word, name);
    if (d < best) best = d, found = name;
  }
  return found;
}

/// The command in `argv`, and "" or a hint if its name is misspelt.
std::string command_hint(const CLI::App& app, int argc, char** argv) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  if (names.empty() || argc < 2 || argv[1][0] == '-') return "";
  const std::string word = argv[1];
  if (word == "train") return "; training is dapo_train FILE.cfg";
  if (word == "help") return "; see dapo --help, or dapo COMMAND --help";
  const std::string name = nearest(word, names);
  return name.empty() || name == word ? "" : fmt::format("; did you mean dapo {}?", name);
}
}  // namespace

std::string usage_hint(std::string_view program, const CLI::App& app, int argc, char** argv) {
  const bool trains = program == "dapo_train";
  const auto named =
      app.get_subcommands([&](const CLI::App* command) { return argc > 1 && command->get_name() == argv[1]; });
  const CLI::App& command = named.empty() ? app : *named[0];
  if (named.empty())
    if (std::string hint = command_hint(app, argc, argv); !hint.empty()) return hint;
  std::vector<std::string> names;
  for (const CLI::Option* o : command.get_options())
    names.insert(names.end(), o->get_lnames().begin(), o->get_lnames().end());
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i], before = argv[i - 1];
    const size_t equals = word.find('='), dot = word.find('.');
    if (trains && (word == "--config" || word.starts_with("--config=")))
      return "; the config is a positional argument: dapo_train FILE.cfg";
    if (trains && before != "--set" && dot < equals && equals != word.npos)
      return fmt::format("; a setting is written --set {}", word.substr(std::min(word.find_first_not_of('-'), dot)));
    if (!word.starts_with("--") || before == "--set") continue;
    const std::string name(word.substr(2, equals == word.npos ? word.npos : equals - 2));
    if (name.empty() || std::ranges::find(names, name) != names.end()) continue;
    if (const std::string meant = nearest(name, names); !meant.empty())
      return fmt::format("; did you mean {}{}?", meant.size() == 1 ? "-" : "--", meant);
    if (const std::string hint = trains ? name_hint(name) : ""; hint.starts_with("did you mean"))
      return fmt::format("; {} (a setting is written --set section.field=value)", hint);
  }
  return "; see --help for the options";
}

}  // namespace dapo
