#include <fmt/format.h>

#include <filesystem>

#include "core/check.h"
#include "host/app/commands.h"
#include "host/app/report.h"
#include "host/app/streams.h"

namespace dapo {

int run_report_command(const ReportOptions& o) {
  const std::string path = write_report(o.runs, o.out);
  std::error_code none;
  if (path != "-")
    print_out(fmt::format("{}: {:.0f} kB; open it in a browser\n", path,
                          static_cast<double>(std::filesystem::file_size(path, none)) / 1e3));
  return kExitOk;
}

}  // namespace dapo
