// Names for code addresses, from addr2line (binutils come with the compiler); only used after a fault.
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine.h"

namespace sim {
namespace {

struct Frame {
  std::string function, line;
};

using Frames = std::vector<Frame>;  // at a code address, innermost first

/// Asks addr2line about addresses of one program or library, all at once: reading its debug information takes a second.
void look_up(const std::string& file, const std::vector<std::pair<std::uintptr_t, Frames*>>& places) {
  std::string command = "addr2line -a -C -f -i -e '" + file + "'";
  for (const auto& [offset, frames] : places) {
    char text[24];
    std::snprintf(text, sizeof text, " 0x%zx", offset);
    command += text;
  }
  std::FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  if (!pipe) return;
  const auto read_line = [pipe](std::string& s) {
    char* text = nullptr;
    std::size_t room = 0;
    const auto n = getline(&text, &room, pipe);
    if (n > 0) s.assign(text, static_cast<std::size_t>(n) - (text[n - 1] == '\n'));
    free(text);
    return n > 0;
  };
  // For each address a line with it, then function and place of every frame.
  std::size_t next = 0;
  for (Frame f; read_line(f.function);) {
    if (f.function.starts_with("0x")) {
      ++next;
      continue;
    }
    if (next == 0 || next > places.size() || !read_line(f.line)) break;
    if (auto p = f.line.find(" (discriminator"); p != std::string::npos) f.line.resize(p);
    places[next - 1].second->push_back(f);
  }
  pclose(pipe);
}

/// The frames at each address, from memory where it has been asked for before.
std::vector<Frames> frames(const std::vector<const void*>& codes) {
  static std::mutex mutex;
  static auto* known = new std::map<const void*, Frames>;
  std::lock_guard lock(mutex);
  std::map<std::string, std::vector<std::pair<std::uintptr_t, Frames*>>> unknown;  // by file
  Dl_info self{};
  dladdr(reinterpret_cast<const void*>(&function_name), &self);
  for (const void* code : codes) {
    auto [it, fresh] = known->try_emplace(code);
    Dl_info info{};
    if (!fresh || !dladdr(code, &info)) continue;
    char own[4096] = {};
    const bool ours = info.dli_fbase == self.dli_fbase;
    if (ours && readlink("/proc/self/exe", own, sizeof own - 1) <= 0) continue;
    const auto* header = static_cast<const ElfW(Ehdr)*>(info.dli_fbase);
    const auto base = header->e_type == ET_DYN ? reinterpret_cast<std::uintptr_t>(info.dli_fbase) : 0;
    unknown[ours ? own : info.dli_fname].emplace_back(reinterpret_cast<std::uintptr_t>(code) - base, &it->second);
  }
  for (const auto& [file, places] : unknown) look_up(file, places);
  std::vector<Frames> out;
  out.reserve(codes.size());
  for (const void* code : codes) out.push_back(known->at(code));
  return out;
}

}  // namespace

std::string function_name(const void* code) {
  const Frames f = frames({code})[0];
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

std::vector<std::string> function_names(const std::vector<const void*>& codes) {
  frames(codes);  // together
  std::vector<std::string> names;
  names.reserve(codes.size());
  for (const void* code : codes) names.push_back(function_name(code));
  return names;
}

std::string source_line(const void* code) {
  // A return address is one past its call.
  const Frames f = frames({static_cast<const char*>(code) - 1})[0];
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
