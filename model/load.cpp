// Reading weights: from the tensors of a folder to slices of the flat buffer.
#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>
#include <vector>

#include "core/safetensors.h"
#include "model/folder.h"
#include "model/upload.h"
#include "model/weights.h"

namespace dapo {
namespace {

/// Rows of one tensor in a file, or the same columns of them, and their place in the flat buffer.
struct Slice {
  const TensorInfo* from;
  int64_t from_element;
  int64_t to_element;  ///< in the flat buffer
  int64_t rows, columns;
  int64_t stride;  ///< elements from one row to the next in the file
  int64_t count() const { return rows * columns; }
};

float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
  if (exponent == 31) return bits_float(sign | 0x7f800000 | fraction << 13);
  if (exponent == 0) {
    const float subnormal = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -subnormal : subnormal;
  }
  return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
}

template <class From, class Decode>
void convert_run(void* to, DType t, const char* from, int64_t count, Decode decode) {
  const auto each = [&](auto&& put) {
    for (int64_t i = 0; i < count; ++i) {
      From v;
      std::memcpy(&v, from + static_cast<size_t>(i) * sizeof v, sizeof v);
      put(i, decode(v));
    }
  };
  if (t == DType::f32)
    each([to](int64_t i, float v) { static_cast<float*>(to)[i] = v; });
  else
    each([to](int64_t i, float v) { static_cast<bf16*>(to)[i] = to_bf16(v); });
}

void convert(void* to, DType t, const char* from, const std::string& dtype, int64_t count) {
  if (dtype == "F32")
    convert_run<float>(to, t, from, count, [](float v) { return v; });
  else if (dtype == "F64")
    convert_run<double>(to, t, from, count, [](double v) { return static_cast<float>(v); });
  else if (dtype == "BF16")
    convert_run<uint16_t>(to, t, from, count, [](uint16_t v) { return to_float(bf16{v}); });
  else
    convert_run<uint16_t>(to, t, from, count, half_to_float);
}

/// Bytes of an element; 0 if the type cannot be loaded.
uint64_t element_size(const std::string& dtype) {
  return dtype == "F64" ? 8 : dtype == "F32" ? 4 : dtype == "F16" || dtype == "BF16" ? 2 : 0;
}

/// How names in a file differ from the table's. Wrappers put their name before every name ("_orig_mod.model.layers...") or
/// inside it ("model.layers.0._checkpoint_wrapped_module.mlp..."); a model saved without its head lacks the "model."
/// ("layers...").
struct Naming {
  std::vector<std::string> removed;
  std::string prefix;
  bool headless = false;

  explicit Naming(const SafetensorsReader& file) {
    constexpr std::string_view kModel = "model.", kFirst = "embed_tokens.weight";
    std::vector<std::string> before;
    for (const TensorInfo& t : file.tensors()) {
      const std::string name = unwrapped(t.name, &removed);
      if (name.ends_with(kFirst)) before.push_back(name.substr(0, name.size() - kFirst.size()));
    }
    if (before.size() != 1 || before[0] == kModel) return;
    prefix = before[0];
    headless = !prefix.ends_with(".model.");
    if (!headless) prefix.resize(prefix.size() - kModel.size());
    if (!prefix.empty()) removed.push_back(prefix);
  }
  std::string table_name(const std::string& given) const {
    std::string name = unwrapped(given);
    if (!name.starts_with(prefix)) return name;
    const std::string rest = name.substr(prefix.size());
    const bool inside = rest.starts_with("layers.") || rest.starts_with("embed_tokens.") || rest.starts_with("norm.");
    return headless ? inside ? "model." + rest : name : rest;
  }

 private:
  /// Without what torch.compile, activation checkpointing and FSDP insert; adds what there was to `found`.
  static std::string unwrapped(std::string name, std::vector<std::string>* found = nullptr) {
    for (const std::string wrapper : {"_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module."})
      for (size_t at; (at = name.find(wrapper)) != name.npos;) {
        name.erase(at, wrapper.size());
        if (found && std::find(found->begin(), found->end(), wrapper) == found->end()) found->push_back(wrapper);
      }
    return name;
  }
};

using TensorMap = std::map<std::string, const TensorInfo*>;  // by the table's names

/// Error (exit 2) if tensor names show a quantised checkpoint or a LoRA adapter that was not merged.
void refuse_packed(const TensorMap& tensors) {
  for (const auto& [name, t] : tensors) {
    for (const char* part : {".qweight", ".qzeros", ".g_idx", ".weight_scale", ".weight_packed", ".SCB", ".absmax",
                             ".quant_state", ".quant_map"})
      if (name.find(part) != name.npos)
        fail_input("{}: tensor '{}', {}, belongs to a quantised checkpoint: use the model that it was made from",
                   t->file, t->name, t->describe());
    for (const char* part : {".lora_A", ".lora_B", ".base_layer."})
      if (name.find(part) != name.npos)
        fail_input(
            "{}: tensor '{}', {}, belongs to a LoRA adapter: merge it into its base model first (peft: "
            "merge_and_unload)",
            t->file, t->name, t->describe());
  }
}

/// Error (exit 2) if the head of a model whose config.json ties it to the embeddings has values of its own: transformers
/// 4 would drop them, transformers 5 use them.
void refuse_other_head(const SafetensorsReader& file, const TensorInfo& head, const TensorInfo& embedding) {
  const uint64_t a = element_size(head.dtype), b = element_size(embedding.dtype);
  if (head.shape != embedding.shape || a == 0) return;  // another model's head, ignored
  const uint64_t all = head.bytes() / a;
  std::vector<char> raw;
  std::vector<float> values[2];
  for (uint64_t begin = 0; begin < all; begin += kUploadElements) {
    const uint64_t count = std::min<uint64_t>(kUploadElements, all - begin);
    for (const auto& [t, size, to] : {std::tuple(&head, a, &values[0]), std::tuple(&embedding, b, &values[1])}) {
      raw.resize(count * size);
      to->resize(count);
      file.read(*t, begin * size, raw.data(), raw.size());
      convert(to->data(), DType::f32, raw.data(), t->dtype, static_cast<int64_t>(count));
    }
    if (std::memcmp(values[0].data(), values[1].data(), count * sizeof(float)) != 0)
      fail_input(
          "{}: config.json has \"tie_word_embeddings\": true, but tensor '{}' differs from '{}': set it to false for "
          "a head of its own, or remove the tensor",
          head.file, head.name, embedding.name);
  }
}

struct LoadPlan {
  std::vector<Slice> slices;
  std::string note;
};

/// Plans the load: every part of every parameter must exist with its shape. Extra tensors (a value head) are ignored
/// and named in the note, but inside the layers they are errors, since they mean another architecture.
LoadPlan plan_load(const SafetensorsReader& file, const ParamTable& params, const std::string& folder) {
  const Naming naming(file);
  TensorMap unused;  // tensors that no parameter has claimed yet
  for (const TensorInfo& t : file.tensors())
    if (!unused.emplace(naming.table_name(t.name), &t).second) unused.emplace(t.name, &t);
  refuse_packed(unused);
  LoadPlan plan;
  TensorMap used;  // a tensor may have several parts
  for (const Param& p : params.all)
    for (const ParamPart& part : p.parts) {
      if (auto tensor = unused.extract(part.name)) used.insert(std::move(tensor));
      const auto it = used.find(part.name);
      if (it == used.end())
        fail_input(
            "{}: tensor '{}' is missing; {}", folder, part.name,
            part.name == "lm_head.weight"
                ? "if the model uses its embeddings for the head, config.json lacks \"tie_word_embeddings\": true"
                : "does config.json belong to these files?");
      const TensorInfo& t = *it->second;
      TensorInfo want;
      want.dtype = t.dtype, want.shape = p.tensor_shape(part);
      if (t.shape != want.shape)
        fail_input("{}: tensor '{}' is {}, but config.json asks for {}", t.file, t.name, t.describe(), want.describe());
      if (element_size(t.dtype) == 0)
        fail_input("{}: tensor '{}' is {}, expected F32, BF16, F16 or F64; is the checkpoint quantised?", t.file,
                   t.name, t.describe());
      const int64_t begin = p.offset + part.row_begin * p.columns,
                    step = std::max<int64_t>(1, kUploadElements / p.columns);
      for (int64_t row = 0; row < part.rows; row += step)
        plan.slices.push_back({&t, (part.tensor_row + row) * p.tensor_columns + p.column_begin, begin + row * p.columns,
                               std::min(step, part.rows - row), p.columns, p.tensor_columns});
    }
  std::erase_if(unused, [](const auto& t) { return t.first.ends_with("rotary_emb.inv_freq"); });  // computed here
  size_t ignored = 0;
  for (const auto& [name, t] : unused) {
    if (name.starts_with("model.layers."))
      fail_input("{}: unknown tensor '{}', {}: the architecture differs from config.json", t->file, t->name,
                 t->describe());
    if (++ignored <= 4) plan.note += (ignored > 1 ? ", " : "") + t->name;
  }
  if (ignored > 4) plan.note += fmt::format(" and {} more", ignored - 4);
  if (ignored > 0) plan.note = "ignored, not part of the model: " + plan.note;
  if (!naming.removed.empty())
    plan.note +=
        fmt::format("{}removed \"{}\" from tensor names", ignored > 0 ? "; " : "", fmt::join(naming.removed, "\", \""));
  if (const auto head = unused.find("lm_head.weight"); head != unused.end())
    if (const auto embedding = used.find("model.embed_tokens.weight"); embedding != used.end())
      refuse_other_head(file, *head->second, *embedding->second);
  return plan;
}

}  // namespace

std::string check_weights(const std::string& folder, const ModelConfig& config) {
  return plan_load(SafetensorsReader(folder), parameter_table(config), folder).note;
}

std::string Weights::load(const std::string& folder) {
  const SafetensorsReader file(folder);
  const LoadPlan plan = plan_load(file, params_, folder);
  const DType dtype = backend_.dtype();
  const std::string same = dtype == DType::f32 ? "F32" : "BF16";
  std::vector<Tensor> to;
  for (const Slice& s : plan.slices) to.push_back(flat_.rows(s.to_element, s.count()));
  upload(backend_, to, [&](size_t i, void* p) {
    const Slice& s = plan.slices[i];
    const size_t size = element_size(s.from->dtype);
    const auto read = [&](void* to_rows) {
      file.read_rows(*s.from, static_cast<uint64_t>(s.from_element) * size, to_rows, static_cast<size_t>(s.rows),
                     static_cast<size_t>(s.columns) * size, static_cast<size_t>(s.stride) * size);
    };
    if (s.from->dtype == same) return read(p);
    std::vector<char> raw(static_cast<size_t>(s.count()) * size);
    read(raw.data());
    convert(p, dtype, raw.data(), s.from->dtype, s.count());
  });
  return plan.note;
}

}  // namespace dapo
