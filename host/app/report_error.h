// The one place where both programs turn an exception into one line on standard error and an exit code.
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
#include "host/app/interrupt.h"
#include "host/app/streams.h"
#include "host/app/usage_hint.h"
#include "host/app/version.h"

namespace dapo {

inline int report_error(const char* program, int code, std::string what) {
  std::fflush(stdout);
  std::replace_if(
      what.begin(), what.end(), [](char ch) { return static_cast<unsigned char>(ch) < ' '; }, ' ');
  std::fprintf(stderr, "%s: %s\n", program, what.c_str());
  return code;
}

/// Parses the command line, runs body() and returns the exit code: nonzero if anything written to standard output was
/// lost.
inline int run_program(const char* program, CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
  settle_standard_files();
  settle_threads(argv);
  leave_on_interrupts();
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
    return report_error(program, kExitUsage, std::string(e.what()) + usage_hint(program, app, argc, argv));
  } catch (const Error& e) {
    return report_error(program, e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return report_error(program, kExitResources, "out of memory");
  } catch (const std::exception& e) {
    return report_error(program, kExitInternal, e.what());
  }
}

}  // namespace dapo
