#include "host/app/ceilings.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "core/progress.h"
#include "host/app/backends.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", localtime_r(&now, &local));
  return text;
}

/// The file's object; empty if it is absent or not what this program writes.
Json read_cache(const std::string& path) {
  std::ifstream in(path);
  Json json = Json::parse(in, nullptr, false);
  return json.is_object() ? json : Json::object();
}

bool write_cache(const std::string& path, const Json& json) {
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  const std::string fresh = fmt::format("{}.{}", path, getpid());  // two programs at once: the last rename counts
  {
    std::ofstream out(fresh);
    out << json.dump(1, ' ', false, Json::error_handler_t::replace) << '\n';
    if (!out.flush()) error = std::make_error_code(std::errc::io_error);
  }
  if (!error) fs::rename(fresh, path, error);
  if (error) fs::remove(fresh, error), error = std::make_error_code(std::errc::io_error);
  return !error;
}

double number(const Json& entry, const char* name) {
  const auto found = entry.find(name);
  return found != entry.end() && found->is_number() ? found->get<double>() : 0;
}

}  // namespace

bool processors_busy() {
  double load = 0;
  return getloadavg(&load, 1) == 1 && load > 0.5 * std::thread::hardware_concurrency();
}

std::string driver_version() {
  std::ifstream in("/proc/driver/nvidia/version");
  std::string line;
  std::getline(in, line);
  std::istringstream words(line);
  for (std::string word; words >> word;)
    if (std::isdigit(static_cast<unsigned char>(word[0])) && word.find('.') != std::string::npos) return word;
  return "";
}

std::string machine_identity(const Backend& backend) {
  char host[256] = "unknown";
  gethostname(host, sizeof host - 1);
  const std::string driver = driver_version();
  return fmt::format("{}; {}{}", host, backend.describe(), driver.empty() ? "" : "; driver " + driver);
}

std::string ceilings_file() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/')
    return std::string(cache) + "/dapo/ceilings.json";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/')
    return std::string(home) + "/.cache/dapo/ceilings.json";
  return "";
}

double measure_bandwidth(Backend& backend) {
  // Larger than any cache of a CPU or GPU; less where memory is short.
  const size_t wanted = size_t{256} << 20, floats = std::min(wanted, backend.memory_available() / 16) / 4;
  const size_t bytes = floats * 4, spare = size_t{4} << 20;
  void* memory = backend.allocate(2 * bytes + spare, true);
  Arena workspace("measure", static_cast<char*>(memory) + 2 * bytes, spare);
  const Tensor sum = workspace.take("sum", DType::f64, {1});
  backend.set_workspace(&workspace);
  const Tensor a(memory, DType::f32, {static_cast<int64_t>(floats)});
  const Tensor b(static_cast<char*>(memory) + bytes, DType::f32, {static_cast<int64_t>(floats)});
  backend.zero(a), backend.zero(b);
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    backend.synchronize();
    const Stopwatch copying;
    backend.copy(b, a);
    backend.synchronize();
    best = std::max(best, 2 * static_cast<double>(bytes) / copying.seconds());
    const Stopwatch reading;
    backend.sum_of_squares(sum, a);
    backend.synchronize();
    best = std::max(best, static_cast<double>(bytes) / reading.seconds());
  }
  backend.set_workspace(nullptr);
  backend.release(memory, 2 * bytes + spare);
  return best;
}

MeasuredCeilings machine_ceilings(Backend& backend, bool busy) {
  const std::string path = ceilings_file(), key = machine_identity(backend);
  Json cache = path.empty() ? Json::object() : read_cache(path);
  if (const auto entry = cache.find(key); entry != cache.end() && entry->is_object()) {
    const Ceilings known{number(*entry, "flops"), number(*entry, "bytes_per_second")};
    const auto day = entry->find("date");
    const std::string date = day != entry->end() && day->is_string() ? day->get<std::string>() : "earlier";
    if (known.flops > 0 && known.bytes_per_second > 0)
      return {known, fmt::format("measured {}; delete {} to measure again", date, path)};
  }
  const Ceilings now{measure_flops(backend), measure_bandwidth(backend)};
  if (busy) return {now, "measured now, beside other programs, so not kept"};
  cache[key] = {{"flops", now.flops}, {"bytes_per_second", now.bytes_per_second}, {"date", today()}};
  const bool kept = !path.empty() && write_cache(path, cache);
  return {now, kept ? "measured now, kept in " + path : "measured now; no cache file could be written"};
}

}  // namespace dapo
