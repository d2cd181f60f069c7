// Names for code addresses, from addr2line (binutils come with the compiler); only used after a fault.
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "engine.h"

namespace sim {
namespace {

struct Frame {
  std::string function, line;
};

/// The frames at a code address, innermost first.
const std::vector<Frame>& frames(const void* code) {
  static std::mutex mutex;
  static auto* known = new std::map<const void*, std::vector<Frame>>;
  std::lock_guard lock(mutex);
  auto [it, fresh] = known->try_emplace(code);
  if (!fresh) return it->second;
  Dl_info info{}, self{};
  if (!dladdr(code, &info) || !dladdr(reinterpret_cast<const void*>(&function_name), &self)) return it->second;
  char exe[4096] = {};
  if (info.dli_fbase == self.dli_fbase) {
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) <= 0) return it->second;
  } else {
    std::snprintf(exe, sizeof exe, "%s", info.dli_fname);
  }
  const auto* header = static_cast<const ElfW(Ehdr)*>(info.dli_fbase);
  const auto base = header->e_type == ET_DYN ? reinterpret_cast<std::uintptr_t>(info.dli_fbase) : 0;
  char command[4400];
  std::snprintf(command, sizeof command, "addr2line -C -f -i -e '%s' 0x%zx 2>/dev/null", exe,
                reinterpret_cast<std::uintptr_t>(code) - base);
  std::FILE* pipe = popen(command, "r");
  if (!pipe) return it->second;
  const auto read_line = [pipe](std::string& s) {
    char* text = nullptr;
    std::size_t room = 0;
    const auto n = getline(&text, &room, pipe);
    if (n > 0) s.assign(text, static_cast<std::size_t>(n) - (text[n - 1] == '\n'));
    free(text);
    return n > 0;
  };
  Frame f;
  while (read_line(f.function) && read_line(f.line)) {
    if (auto p = f.line.find(" (discriminator"); p != std::string::npos) f.line.resize(p);
    it->second.push_back(f);
  }
  pclose(pipe);
  return it->second;
}

}  // namespace

std::string function_name(const void* code) {
  const auto& f = frames(code);
  if (f.empty() || f.back().function == "??") return "kernel";
  const std::string& full = f.back().function;
  // "void (anonymous namespace)::k<float>(float*, int)": keep what is before the arguments.
  std::string name;
  int depth = 0;
  std::size_t end = full.size();
  if (end && full.back() == ')') {
    while (end > 0) {
      --end;
      if (full[end] == ')') ++depth;
      if (full[end] == '(' && --depth == 0) break;
    }
  }
  name = full.substr(0, end);
  if (name.starts_with("void ")) name.erase(0, 5);
  for (std::size_t p; (p = name.find("(anonymous namespace)::")) != std::string::npos;) name.erase(p, 23);
  return name;
}

std::string source_line(const void* code) {
  // A return address is one past its call.
  const auto& f = frames(static_cast<const char*>(code) - 1);
  for (const Frame& g : f)
    if (g.line.find("/sim/") == std::string::npos || g.line.find("/tests/sim/") != std::string::npos)
      if (g.line.find("cuda/ptx.cuh") == std::string::npos && !g.line.starts_with("sim/")) return g.line;
  return f.empty() ? "?" : f.front().line;
}

Range thread_local_range() {
  thread_local Range range;
  if (range.low) return range;
  // The main program comes first; kernels are linked into it.
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
          auto* r = static_cast<Range*>(out);
          r->low = static_cast<const char*>(info->dlpi_tls_data);
          r->high = r->low + info->dlpi_phdr[i].p_memsz;
        }
        return 1;
      },
      &range);
  return range;
}

}  // namespace sim
