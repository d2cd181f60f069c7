#include "host/train/run_state.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/new_file.h"
#include "core/safetensors.h"
#include "host/train/run_state_fields.h"

namespace dapo {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 3, kOldest = 1;  // 2: "evaluation"; 3: "exchange_..."
constexpr const char *kStateFile = "state.json", *kGroupsFile = "groups.safetensors";

using saved::fields;

// ---- writing

struct Writer {
  std::vector<int32_t>& ids;
  std::vector<float>& log_probs;

  Json value(double v) const {  // JSON has no such numbers
    if (std::isfinite(v)) return v;
    return std::isnan(v) ? "nan" : v > 0 ? "inf" : "-inf";
  }
  Json value(float v) const { return value(double(v)); }
  Json value(const std::string& v) const { return v; }
  Json value(const std::vector<std::string>& v) const { return v; }
  template <class T>
  Json value(const T& v) const requires std::integral<T> {
    return v;
  }
  template <class T>
  Json value(const T& v) const requires std::is_enum_v<T> {
    return int(v);
  }
  template <class A, class B>
  Json value(const std::pair<A, B>& v) const {
    return {value(v.first), value(v.second)};
  }
  template <class T>
  Json value(const std::optional<T>& v) const {
    return v ? value(*v) : Json();
  }
  template <class T>
  Json value(const std::vector<T>& v) const {
    Json out = Json::array();
    for (const T& x : v) out.push_back(value(x));
    return out;
  }
  template <class T>
  Json value(const T& v) const requires std::is_class_v<T> {
    Json out = Json::object();
    fields(const_cast<T&>(v), [&](const std::string& name, auto& member) { out[name] = value(member); });
    return out;
  }
  Json value(const AlarmState& a) const { return a.text(); }
  Json value(const std::vector<PromptRecord>& v) const {
    for (const PromptRecord& r : v)
      for (const int32_t x : {r.visits, r.streak, r.right, r.judged}) ids.push_back(x);
    return v.size();
  }
  Json value(const Sample& s) const {
    Json out = Json::object();
    fields(const_cast<Sample&>(s), [&](const std::string& name, auto& member) { out[name] = value(member); });
    out["tokens"] = s.response.ids.size();
    out["recomputed"] = !s.old_log_prob.empty();
    ids.insert(ids.end(), s.response.ids.begin(), s.response.ids.end());
    log_probs.insert(log_probs.end(), s.response.log_prob.begin(), s.response.log_prob.end());
    log_probs.insert(log_probs.end(), s.old_log_prob.begin(), s.old_log_prob.end());
    return out;
  }
  Json value(const Group& g) const {
    Json out = Json::object();
    fields(const_cast<Group&>(g), [&](const std::string& name, auto& member) { out[name] = value(member); });
    out["prompt_tokens"] = g.prompt.size();
    ids.insert(ids.end(), g.prompt.begin(), g.prompt.end());
    out["samples"] = value(g.samples);
    return out;
  }
};

// ---- reading

struct Reader {
  int format;
  std::vector<int32_t> ids = {};
  std::vector<float> log_probs = {};
  size_t next_id = 0, next_log_prob = 0;

  template <class T>
  static void take(std::vector<T>& to, const std::vector<T>& from, size_t& next, size_t count) {
    if (count > from.size() - next) fail_input("{} ends before the groups that it shall hold", kGroupsFile);
    to.assign(from.begin() + next, from.begin() + next + count);
    next += count;
  }
  void read(const Json& j, double& v) {
    v = !j.is_string() ? j.get<double>() : j == "nan" ? NAN : j == "inf" ? INFINITY : -INFINITY;
  }
  void read(const Json& j, float& v) {
    double d;
    read(j, d);
    v = d;
  }
  void read(const Json& j, std::string& v) { v = j.get<std::string>(); }
  void read(const Json& j, std::vector<std::string>& v) { v = j.get<std::vector<std::string>>(); }
  template <class T>
  void read(const Json& j, T& v) requires std::integral<T> {
    v = j.get<T>();
  }
  template <class T>
  void read(const Json& j, T& v) requires std::is_enum_v<T> {
    v = T(j.get<int>());
  }
  template <class A, class B>
  void read(const Json& j, std::pair<A, B>& v) {
    read(j.at(0), v.first);
    read(j.at(1), v.second);
  }
  template <class T>
  void read(const Json& j, std::optional<T>& v) {
    if (j.is_null()) return v.reset();
    read(j, v.emplace());
  }
  template <class T>
  void read(const Json& j, std::vector<T>& v) {
    v.clear();
    for (const Json& x : j) read(x, v.emplace_back());
  }
  template <class T>
  void read(const Json& j, T& v) requires std::is_class_v<T> {
    fields(v, [&](const std::string& name, auto& member) {
      if (format > 2 || !name.starts_with("exchange_")) read(j.at(name), member);
    });
  }
  void read(const Json& j, RunState& r) {
    saved::fields(r, [&](const std::string& name, auto& member) {
      if (format > 1 || name != "evaluation") read(j.at(name), member);
    });
  }
  void read(const Json& j, AlarmState& a) { a = AlarmState::parse(j.get<std::string>()); }
  void read(const Json& j, std::vector<PromptRecord>& v) {
    std::vector<int32_t> flat;
    take(flat, ids, next_id, 4 * j.get<size_t>());
    v.resize(flat.size() / 4);
    for (size_t i = 0; i < v.size(); ++i) v[i] = {flat[4 * i], flat[4 * i + 1], flat[4 * i + 2], flat[4 * i + 3]};
  }
  void read(const Json& j, Sample& s) {
    fields(s, [&](const std::string& name, auto& member) { read(j.at(name), member); });
    const size_t tokens = j.at("tokens").get<size_t>();
    take(s.response.ids, ids, next_id, tokens);
    take(s.response.log_prob, log_probs, next_log_prob, tokens);
    if (j.at("recomputed").get<bool>()) take(s.old_log_prob, log_probs, next_log_prob, tokens);
  }
  void read(const Json& j, Group& g) {
    fields(g, [&](const std::string& name, auto& member) { read(j.at(name), member); });
    take(g.prompt, ids, next_id, j.at("prompt_tokens").get<size_t>());
    read(j.at("samples"), g.samples);
  }
};

template <class T>
TensorToWrite vector_tensor(const char* name, DType dtype, const std::vector<T>& v) {
  return {name, dtype, {std::ssize(v)}, [&v](uint64_t offset, void* to, size_t bytes) {
            std::memcpy(to, reinterpret_cast<const char*>(v.data()) + offset, bytes);
          }};
}

template <class T>
void read_vector(const SafetensorsReader& file, const char* name, const char* dtype, std::vector<T>& v) {
  const TensorInfo* t = file.find(name);
  if (t == nullptr || t->dtype != dtype || t->shape.size() != 1) fail_input("no tensor '{}' {}", name, dtype);
  v.resize(t->bytes() / sizeof(T));
  file.read(*t, 0, v.data(), t->bytes());
}

}  // namespace

StateImage::StateImage(const RunState& state) {
  Json json = Writer{ids_, log_probs_}.value(state);
  json["format"] = kFormat;
  json_ = json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void StateImage::write(const std::string& folder) const {
  write_safetensors_file(folder + "/" + kGroupsFile,
                         {vector_tensor("ids", DType::i32, ids_), vector_tensor("log_probs", DType::f32, log_probs_)});
  write_new_file(folder + "/" + kStateFile, json_);
}

RunState read_state(const std::string& folder) try {
  std::ifstream in(folder + "/" + kStateFile, std::ios::binary);
  const Json json = Json::parse(in);
  const int format = json.at("format").get<int>();
  if (format < kOldest || format > kFormat)
    fail_input("has format {}, this version reads {} to {}", format, kOldest, kFormat);
  Reader reader{.format = format};
  const SafetensorsReader groups(folder + "/" + kGroupsFile);
  read_vector(groups, "ids", "I32", reader.ids);
  read_vector(groups, "log_probs", "F32", reader.log_probs);
  RunState state;
  reader.read(json, state);
  return state;
} catch (const nlohmann::json::exception& e) {
  fail_input("{}/{}: {}", folder, kStateFile, e.what());
} catch (const Error& e) {
  fail_input("{}: {}", folder, e.what());
}

}  // namespace dapo
