// Weights in and out: safetensors folders, and random beginnings.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <numbers>
#include <thread>

#include "core/safetensors.h"
#include "model/impl.h"

namespace dapo {

void parallel_jobs(size_t count, const std::function<void(size_t)>& body) {
  const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, std::max<size_t>(count, 1));
  std::atomic<size_t> next{0};
  std::exception_ptr error;
  std::mutex mutex;
  const auto work = [&] {
    try {
      for (size_t i; (i = next++) < count;) body(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next = count;
    }
  };
  std::vector<std::thread> pool;
  for (size_t i = 1; i < threads; ++i) pool.emplace_back(work);
  work();
  for (std::thread& t : pool) t.join();
  if (error) std::rethrow_exception(error);
}

namespace {

constexpr int64_t kSlice = 4 << 20;  // elements read or drawn by one job

/// A run of one parameter's elements and where it comes from.
struct Slice {
  const TensorInfo* from;
  int64_t from_element;
  int64_t to_element;  ///< in the flat buffer
  int64_t count;
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

std::vector<int64_t> part_shape(const Param& p, const ParamPart& part) {
  return p.matrix ? std::vector<int64_t>{part.rows, p.columns} : std::vector<int64_t>{part.rows};
}

/// Bytes of an element; 0 for what is not loaded.
uint64_t element_size(const std::string& dtype) {
  return dtype == "F64" ? 8 : dtype == "F32" ? 4 : dtype == "F16" || dtype == "BF16" ? 2 : 0;
}

/// What stands before the table's names in a file: "" where they are the same. Wrappers put a word before all names
/// ("_orig_mod.model.layers..."), a model without its head has none ("layers...").
struct Naming {
  std::string prefix;
  bool headless = false;

  explicit Naming(const SafetensorsReader& file) {
    constexpr std::string_view kModel = "model.", kFirst = "embed_tokens.weight";
    std::vector<std::string> before;
    for (const TensorInfo& t : file.tensors())
      if (t.name.ends_with(kFirst)) before.push_back(t.name.substr(0, t.name.size() - kFirst.size()));
    if (before.size() != 1 || before[0] == kModel) return;
    prefix = before[0];
    headless = !prefix.ends_with(".model.");
    if (!headless) prefix.resize(prefix.size() - kModel.size());
  }
  std::string table_name(const std::string& name) const {
    if (!name.starts_with(prefix)) return name;
    const std::string rest = name.substr(prefix.size());
    const bool inside = rest.starts_with("layers.") || rest.starts_with("embed_tokens.") || rest.starts_with("norm.");
    return headless ? inside ? "model." + rest : name : rest;
  }
};

using TensorMap = std::map<std::string, const TensorInfo*>;  // by the table's names

/// Error (exit 2) where tensors show that the weights are quantised, or a LoRA adapter's that were not merged.
void refuse_packed(const TensorMap& tensors) {
  for (const auto& [name, t] : tensors) {
    for (const char* part : {".qweight", ".qzeros", ".g_idx", ".weight_scale", ".weight_packed", ".SCB", ".absmax",
                             ".quant_state", ".quant_map"})
      if (name.find(part) != name.npos)
        fail_input("{}: tensor '{}', {}, is of a quantised checkpoint: take the model that it was made from", t->file,
                   t->name, t->describe());
    for (const char* part : {".lora_A", ".lora_B", ".base_layer."})
      if (name.find(part) != name.npos)
        fail_input("{}: tensor '{}', {}, is of a LoRA adapter that was not merged (peft: merge_and_unload)", t->file,
                   t->name, t->describe());
  }
}

struct LoadPlan {
  std::vector<Slice> slices;
  std::string note;
};

/// Where every part of every parameter comes from, by name and shape. Tensors beside the model (a value head) are left
/// aside and named in the note; within its layers they mean another architecture.
LoadPlan plan_load(const SafetensorsReader& file, const ParamTable& params, const std::string& folder) {
  const Naming naming(file);
  TensorMap by_name;
  for (const TensorInfo& t : file.tensors())
    if (!by_name.emplace(naming.table_name(t.name), &t).second) by_name.emplace(t.name, &t);
  refuse_packed(by_name);
  LoadPlan plan;
  for (const Param& p : params.all)
    for (const ParamPart& part : p.parts) {
      const auto it = by_name.find(part.name);
      if (it == by_name.end())
        fail_input("{}: tensor '{}' is missing; does config.json belong to these files?", folder, part.name);
      const TensorInfo& t = *it->second;
      TensorInfo want;
      want.dtype = t.dtype, want.shape = part_shape(p, part);
      if (t.shape != want.shape)
        fail_input("{}: tensor '{}' is {}, config.json asks for {}", t.file, t.name, t.describe(), want.describe());
      if (element_size(t.dtype) == 0)
        fail_input("{}: tensor '{}' is {}, expected F32, BF16, F16 or F64; is the checkpoint quantised?", t.file,
                   t.name, t.describe());
      const int64_t count = part.rows * p.columns, begin = p.offset + part.row_begin * p.columns;
      for (int64_t at = 0; at < count; at += kSlice)
        plan.slices.push_back({&t, at, begin + at, std::min(kSlice, count - at)});
      by_name.erase(it);
    }
  std::erase_if(by_name, [](const auto& t) { return t.first.ends_with("rotary_emb.inv_freq"); });  // computed
  size_t aside = 0;
  for (const auto& [name, t] : by_name) {
    if (name.starts_with("model.layers."))
      fail_input("{}: unknown tensor '{}', {}: another architecture than config.json says", t->file, t->name,
                 t->describe());
    if (++aside <= 4) plan.note += (aside > 1 ? ", " : "") + t->name;
  }
  if (aside > 4) plan.note += fmt::format(" and {} more", aside - 4);
  if (aside > 0) plan.note = "left aside, not part of the model: " + plan.note;
  if (!naming.prefix.empty())
    plan.note += fmt::format("{}tensor names read without \"{}\"", aside > 0 ? "; " : "", naming.prefix);
  return plan;
}

/// The way of weights to a device whose memory the host cannot write to: through a few pinned buffers, so that some
/// fill while others are on their way. Calls may come from several threads.
class Staging {
 public:
  Staging(Backend& backend, size_t bytes) : backend_(backend), bytes_(bytes) {
    try {
      for (Buffer& b : buffers_) {
        b.data = backend.allocate_host(bytes);
        free_.push_back(&b);
      }
    } catch (...) {
      release();
      throw;
    }
  }
  ~Staging() {
    try {
      backend_.synchronize();
    } catch (const Error&) {  // was thrown before, where it was met
    }
    release();
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// fill(p) writes the tensor's bytes to p.
  void send(const Tensor& to, const std::function<void(void*)>& fill) {
    CHECK_LE(to.bytes(), bytes_);
    Buffer* b = take();
    try {
      fill(b->data);
      const std::lock_guard lock(mutex_);
      backend_.copy_in(to, b->data);
      b->mark = backend_.record();
      b->sent = true;
    } catch (...) {
      give_back(b);
      throw;
    }
    give_back(b);
  }

 private:
  struct Buffer {
    void* data = nullptr;
    uint64_t mark = 0;
    bool sent = false;  ///< the mark says when it has arrived
  };
  Buffer* take() {
    std::unique_lock lock(mutex_);
    available_.wait(lock, [this] { return !free_.empty(); });
    Buffer* b = free_.front();
    free_.erase(free_.begin());
    try {
      if (b->sent) backend_.wait(b->mark);
    } catch (...) {
      free_.push_back(b);
      available_.notify_one();
      throw;
    }
    return b;
  }
  void give_back(Buffer* b) {
    const std::lock_guard lock(mutex_);
    free_.push_back(b);
    available_.notify_one();
  }
  void release() {
    for (const Buffer& b : buffers_) backend_.release_host(b.data, bytes_);
  }

  Backend& backend_;
  size_t bytes_;
  std::array<Buffer, 4> buffers_;
  std::vector<Buffer*> free_;  ///< oldest first: it has had the most time to arrive
  std::mutex mutex_;           ///< the backend is called by one thread at a time
  std::condition_variable available_;
};

/// A staging where the host cannot write the device's memory itself.
std::unique_ptr<Staging> staging_for(Backend& backend, const Tensor& weights) {
  if (backend.host_view(weights) != nullptr) return nullptr;
  return std::make_unique<Staging>(backend, static_cast<size_t>(kSlice) * dtype_size(weights.dtype));
}

}  // namespace

std::string Model::load(const std::string& folder) {
  const SafetensorsReader file(folder);
  const LoadPlan plan = plan_load(file, params_, folder);
  const std::vector<Slice>& slices = plan.slices;
  const DType dtype = backend_.dtype();
  const std::string same = dtype == DType::f32 ? "F32" : "BF16";
  const std::unique_ptr<Staging> staging = staging_for(backend_, weights_);
  parallel_jobs(slices.size(), [&](size_t i) {
    const Slice& s = slices[i];
    const uint64_t size = element_size(s.from->dtype), offset = static_cast<uint64_t>(s.from_element) * size;
    const size_t bytes = static_cast<size_t>(s.count) * size;
    const Tensor to = weights_.rows(s.to_element, s.count);
    const auto read = [&](void* p) {
      if (s.from->dtype == same) return file.read(*s.from, offset, p, bytes);
      std::vector<char> raw(bytes);
      file.read(*s.from, offset, raw.data(), bytes);
      convert(p, dtype, raw.data(), s.from->dtype, s.count);
    };
    if (staging)
      staging->send(to, read);
    else
      read(backend_.host_view(to));
  });
  backend_.synchronize();
  return plan.note;
}

void Model::init(uint64_t seed, float std) {
  const DType dtype = backend_.dtype();
  const auto fill = [&](size_t index, int64_t begin, int64_t count, void* to) {
    const Param& p = params_.all[index];
    const bool norm =
        p.name.ends_with("norm.weight") || p.name.ends_with("norm1.weight") || p.name.ends_with("norm2.weight");
    for (int64_t i = 0; i < count; ++i) {
      float v = norm ? 1.0f : 0.0f;
      if (p.matrix) {
        // Box-Muller: elements 2k and 2k + 1 are the two normals of one draw.
        const uint64_t pair = static_cast<uint64_t>(begin + i) / 2;
        const Philox4 x = philox(seed, {{static_cast<uint32_t>(pair), static_cast<uint32_t>(pair >> 32),
                                         static_cast<uint32_t>(index), 0x696e6974u /* "init" */}});
        const double radius = std::sqrt(-2 * std::log((static_cast<double>(x.x[0]) + 1) * 0x1p-32));
        const double angle = 2 * std::numbers::pi * static_cast<double>(x.x[1]) * 0x1p-32;
        v = std * static_cast<float>(radius * ((begin + i) % 2 ? std::sin(angle) : std::cos(angle)));
      }
      if (dtype == DType::f32)
        static_cast<float*>(to)[i] = v;
      else
        static_cast<bf16*>(to)[i] = to_bf16(v);
    }
  };
  struct Job {
    size_t index;
    int64_t begin, count;
  };
  std::vector<Job> jobs;
  for (size_t i = 0; i < params_.all.size(); ++i)
    for (int64_t at = 0, n = params_.all[i].numel(); at < n; at += kSlice)
      jobs.push_back({i, at, std::min(kSlice, n - at)});
  const std::unique_ptr<Staging> staging = staging_for(backend_, weights_);
  parallel_jobs(jobs.size(), [&](size_t i) {
    const Job& j = jobs[i];
    const Tensor to = weights_.rows(params_.all[j.index].offset + j.begin, j.count);
    const auto draw = [&](void* p) { fill(j.index, j.begin, j.count, p); };
    if (staging)
      staging->send(to, draw);
    else
      draw(backend_.host_view(to));
  });
  backend_.synchronize();
}

void Model::save(const std::string& folder) {
  std::vector<TensorToWrite> tensors;
  const DType dtype = backend_.dtype();
  for (const Param& p : params_.all)
    for (const ParamPart& part : p.parts) {
      const Tensor from = weights_.rows(p.offset + part.row_begin * p.columns, part.rows * p.columns);
      tensors.push_back({part.name, dtype, part_shape(p, part), [this, from](uint64_t offset, void* to, size_t bytes) {
                           const int64_t size = static_cast<int64_t>(dtype_size(from.dtype));
                           backend_.copy_out_now(
                               to, from.rows(static_cast<int64_t>(offset) / size, static_cast<int64_t>(bytes) / size));
                         }});
    }
  write_safetensors(folder, tensors);
  save_model_config(config_, dtype, folder);
}

}  // namespace dapo
