#include "host/app/doctor.h"

#include <algorithm>

namespace dapo {

size_t Diagnosis::count(Severity severity) const {
  return static_cast<size_t>(std::ranges::count(findings, severity, &Finding::severity));
}

std::string Diagnosis::text() const {
  constexpr const char* kNames[] = {"ok", "note", "WARNING", "ERROR"};
  std::string out = subject + "\n";
  for (const Finding& f : findings) {
    out += fmt::format("  {:<8} {}\n", kNames[static_cast<size_t>(f.severity)], f.what);
    if (!f.todo.empty()) out += fmt::format("  {:<8} -> {}\n", "", f.todo);
  }
  return out;
}

}  // namespace dapo
