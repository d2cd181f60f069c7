// The one place where exceptions of both programs end: one line on standard error, and the exit code.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <new>
#include <string>

#include "core/check.h"
#include "host/app/backends.h"
#include "host/app/streams.h"
#include "host/app/version.h"

namespace dapo {

inline int report_error(const char* program, int code, std::string what) {
  std::fflush(stdout);
  std::replace_if(
      what.begin(), what.end(), [](char ch) { return static_cast<unsigned char>(ch) < ' '; }, ' ');
  std::fprintf(stderr, "%s: %s\n", program, what.c_str());
  return code;
}

/// How other trainers' command lines are written here.
inline std::string usage_hint(std::string_view program, int argc, char** argv) {
  const bool trains = program == "dapo_train";
  for (int i = 1; trains && i < argc; ++i) {
    const std::string_view word = argv[i], before = argv[i - 1];
    const size_t equals = word.find('='), dot = word.find('.');
    if (word == "--config" || word.starts_with("--config=")) return "; the config stands alone: dapo_train FILE.cfg";
    if (!word.starts_with("-") && before != "--set" && dot < equals && equals != word.npos)
      return fmt::format("; a setting is written --set {}", word);
  }
  return "; --help lists the options";
}

/// Parses the command line, runs body() and returns the exit code: not 0 where standard output did not take what was
/// written to it.
inline int run_program(const char* program, CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
  settle_standard_files();
  settle_threads(argv);
  app.set_version_flag("--version", std::string(program) + " " + version_text());
  try {
    int code = 0;
    try {
      app.parse(argc, argv);
      code = body();
    } catch (const CLI::Success& e) {
      code = app.exit(e);
    }
    if (code == 0) check_standard_output();
    return code;
  } catch (const CLI::ParseError& e) {
    return report_error(program, kExitUsage, std::string(e.what()) + usage_hint(program, argc, argv));
  } catch (const Error& e) {
    return report_error(program, e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return report_error(program, kExitResources, "out of memory");
  } catch (const std::exception& e) {
    return report_error(program, kExitInternal, e.what());
  }
}

}  // namespace dapo
