// Writes a report.
#pragma once

#include "host/app/json_lines.h"

namespace dapo::bench {

/// Writes `text` as a whole file, with a newline at its end; does nothing if `path` is empty.
inline void write_file(const std::string& path, std::string_view text) {
  if (path.empty()) return;
  if (text.ends_with('\n')) text.remove_suffix(1);
  LineWriter file(path);
  file.line(text);
  file.commit();
}

}  // namespace dapo::bench
