// A report's file.
#pragma once

#include "host/app/json_lines.h"

namespace dapo::bench {

/// Writes `text`, which ends with a newline or not, as a whole file; nothing where `path` is empty.
inline void write_file(const std::string& path, std::string_view text) {
  if (path.empty()) return;
  if (text.ends_with('\n')) text.remove_suffix(1);
  LineWriter file(path);
  file.line(text);
  file.commit();
}

}  // namespace dapo::bench
