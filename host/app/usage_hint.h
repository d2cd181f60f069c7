// What a wrong command line probably meant.
#pragma once

#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace dapo {

/// The end of an error about the command line: how an argument in the style of other trainers, a misspelt option or a
/// misspelt command is written here.
std::string usage_hint(std::string_view program, const CLI::App& app, int argc, char** argv);

}  // namespace dapo
