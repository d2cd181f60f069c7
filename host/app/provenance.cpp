#include "host/app/provenance.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "host/app/version.h"
#include "tokenizer/jinja.h"

namespace dapo {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

FilePrint print_of(const std::string& path) {
  constexpr uint64_t kBlock = 1 << 20, kBlocks = 64;
  FilePrint print{path, "", 0};
  std::error_code error;
  print.bytes = fs::file_size(path, error);
  std::ifstream in(path, std::ios::binary);
  if (error || !in) return {path, "unreadable", 0};
  const bool whole = print.bytes <= kBlock * kBlocks;
  uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  std::string block(kBlock, '\0');
  for (uint64_t i = 0; i < kBlocks; ++i) {
    const uint64_t at = whole ? i * kBlock : (print.bytes - kBlock) / (kBlocks - 1) * i;
    if (at >= print.bytes) break;
    in.seekg(at);
    in.read(block.data(), std::min(kBlock, print.bytes - at));
    for (std::streamsize k = 0; k < in.gcount(); ++k) h = (h ^ static_cast<unsigned char>(block[k])) * 0x100000001b3u;
  }
  print.hash = fmt::format("{}{:016x}", whole ? "fnv1a:" : "fnv1a-64x1MiB:", h);
  return print;
}

namespace {
Json file_json(const std::string& path) {
  const FilePrint p = print_of(path);
  return {{"path", p.path}, {"bytes", p.bytes}, {"hash", p.hash}};
}
}  // namespace

std::string provenance(const std::string& program, const std::string& device, const std::string& model_folder,
                       const std::vector<std::string>& data_files, const RunNotes& notes) {
  char host[256] = "unknown";
  gethostname(host, sizeof host - 1);
  char time[40];
  const std::time_t now = jinja::template_time();  // the date in the prompts, so that they can be reproduced
  std::tm utc{};
  std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  Json json = {{"program", program},     {"version", version_text()}, {"commit", version_commit()},
               {"host", host},           {"started", time},           {"device", device},
               {"model", Json::array()}, {"data", Json::array()}};
  if (notes.product_gflops > 0) json["product_gflops"] = notes.product_gflops;
  if (!notes.plan.empty()) json["plan"] = notes.plan;
  std::vector<std::string> files;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(model_folder, none))
    if (entry.is_regular_file(none) && entry.path().filename() != "dapo.json") files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  for (const std::string& f : files) json["model"].push_back(file_json(f));
  for (const std::string& f : data_files) json["data"].push_back(file_json(f));
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string provenance_text(const std::string& text) {
  const Json json = Json::parse(text);
  const auto field = [&](const char* name) { return json.at(name).get<std::string>(); };
  std::string out = fmt::format("{} {} on {}, process {}", field("program"), field("version"), field("host"), getpid());
  for (const char* part : {"model", "data"})
    for (const Json& f : json.at(part))
      out += fmt::format("\n{}: {}, {} bytes, {}", part, f.at("path").get<std::string>(), f.at("bytes").get<uint64_t>(),
                         f.at("hash").get<std::string>());
  return out;
}

}  // namespace dapo
