#include "bench/parts/step_phases.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "core/nvtx.h"
#include "core/progress.h"
#include "core/sizes.h"
#include "model/decode.h"
#include "model/learner.h"

namespace dapo::bench {
namespace {

constexpr int kPage = 64;

std::vector<int32_t> random_ids(size_t count, int vocab, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<unsigned>(vocab));
  return ids;
}

int pages_for(int tokens) {
  return ceil_div(tokens, kPage);
}

bool fits(const Backend& b, const ModelConfig& config, const ModelLimits& l, double& gigabytes) {
  const MemoryPlan p = plan_memory(b, config, l);
  gigabytes = gb(p.total());
  return p.total() <= static_cast<size_t>(0.95 * b.memory_available());
}

/// Sequences without a common prefix, `pages` pages each.
PagedBatch batch_of(int sequences, int pages, int rows, int length, int first = 0) {
  PagedBatch p;
  p.row_begin.push_back(0);
  p.max_pages = pages;
  for (int b = 0; b < sequences; ++b) {
    p.row_begin.push_back((b + 1) * rows);
    p.prefix_length.push_back(0), p.own_length.push_back(length);
    for (int i = 0; i < pages; ++i) p.pages.push_back((first + b) * pages + i);
  }
  return p;
}

/// Prompts of `context` tokens into the pages of `sequences` sequences.
void fill_pages(Decoder& decoder, int sequences, int pages, int context) {
  const int most = decoder.limits().prefill_tokens, chunk = std::min(context, most);
  const int together = std::max(1, most / chunk);
  for (int first = 0; first < sequences; first += together)
    for (int begin = 0; begin < context; begin += chunk) {
      const int rows = std::min(chunk, context - begin), n = std::min(together, sequences - first);
      PagedBatch p = batch_of(n, pages, rows, begin + rows, first);
      p.ids = random_ids(size_t(n) * rows, decoder.config().vocab, static_cast<unsigned>(first * 131 + begin));
      decoder.prefill(p, {}, {}, {});
    }
}

double decode_seconds(Decoder& decoder, int sequences, int pages, int context, int steps) {
  PagedBatch p = batch_of(sequences, pages, 1, context);
  p.ids = random_ids(static_cast<size_t>(sequences), decoder.config().vocab, 3);
  for (int b = 0; b < sequences; ++b) p.keys.push_back({1, b, 0}), p.positions.push_back(context);
  std::vector<int32_t> tokens(steps * sequences);
  std::vector<float> log_prob(tokens.size());
  double best = INFINITY;
  for (int repeat = 0; repeat < 3; ++repeat) {  // the first records the graph
    const NvtxRange range("decode");
    const Stopwatch watch;
    decoder.decode(p, steps, {}, tokens, log_prob);
    best = std::min(best, watch.seconds() / steps);
  }
  for (const float x : log_prob)
    if (!std::isfinite(x)) fail(kExitNumerics, "decode at {} x {}: a log-prob is not finite", sequences, context);
  return best;
}

}  // namespace

std::vector<DecodeRow> time_decode(Backend& b, const ModelConfig& config, const Peaks& peaks, std::vector<int> batches,
                                   std::vector<int> contexts, int steps, std::string& note) {
  std::sort(batches.begin(), batches.end()), std::sort(contexts.begin(), contexts.end());
  const auto limits = [&](int batch, int context) {
    ModelLimits l;
    l.max_length = context + steps;
    l.batch = batch, l.decode_steps = steps, l.page_size = kPage;
    l.kv_pages = int64_t{batch} * pages_for(context + steps);
    l.prefill_tokens = static_cast<int>(std::min<int64_t>(int64_t{batch} * context, 8192));
    return l;
  };
  std::vector<DecodeRow> rows;
  for (const int context : contexts) {
    while (!batches.empty()) {
      double needed = 0;
      if (fits(b, config, limits(batches.back(), context), needed)) break;
      note += fmt::format("decode of {} x {} tokens needs {:.1f} GB: left out; ", batches.back(), context, needed);
      batches.pop_back();
    }
    if (batches.empty()) break;
    RandomModel random(b, config);
    ModelMemory memory(random.weights, limits(batches.back(), context));
    Decoder decoder(memory);
    decoder.begin();
    const int pages = pages_for(context + steps);
    fill_pages(decoder, batches.back(), pages, context);
    for (const int batch : batches) {
      DecodeRow r{batch, context};
      r.seconds = decode_seconds(decoder, batch, pages, context, steps);
      const double length = context + 0.5 * steps;
      r.limit = decode_limit(config, b.dtype(), peaks, batch, length, batch * length);
      rows.push_back(r);
    }
  }
  return rows;
}

std::vector<TrainRow> time_training(Backend& b, const ModelConfig& config, const Peaks& peaks,
                                    const std::vector<int>& lengths, int64_t tokens, std::string& note) {
  std::vector<TrainRow> rows;
  for (const int length : lengths) {
    ModelLimits l;
    l.max_length = length, l.train = true;
    double needed = 0;
    int64_t count = std::max<int64_t>(1, tokens / length);
    const auto set = [&] { l.pack_tokens = l.pack_head_rows = count * length, l.pack_segments = count; };
    for (set(); !fits(b, config, l, needed) && count > 0;) count /= 2, set();
    if (count == 0) {
      note += fmt::format("training at {} tokens needs {:.1f} GB: left out; ", length, needed);
      continue;
    }
    RandomModel random(b, config);
    ModelMemory memory(random.weights, l);
    Learner learner(memory);
    learner.begin();
    Pack pack;
    pack.ids = random_ids(static_cast<size_t>(l.pack_tokens), config.vocab, 5);
    std::mt19937 draw(9);
    const float old = -std::log(static_cast<float>(config.vocab));
    for (int32_t s = 0; s < count; ++s) {
      const int32_t begin = s * length;
      pack.segments.push_back({begin, length, -1});
      for (int32_t i = begin; i + 1 < begin + length; ++i) {
        pack.head_rows.push_back(i), pack.targets.push_back(pack.ids[static_cast<size_t>(i) + 1]);
        pack.old_log_prob.push_back(old), pack.advantage.push_back(draw() % 2 ? 1.0f : -1.0f);
      }
    }
    pack.weight.assign(pack.head_rows.size(), 1.0f / pack.head_rows.size());
    const AdamW adamw{1e-6f, 0.9f, 0.999f, 1e-8f, 0.1f, 1, 1.0f};
    TrainRow r{length, l.pack_tokens};
    r.seconds = r.update = INFINITY;
    for (int repeat = 0; repeat < 3; ++repeat) {
      b.synchronize();
      const NvtxRange range("update");
      const Stopwatch training;
      learner.train(pack, 1.0f, {});
      b.synchronize();
      r.seconds = std::min(r.seconds, training.seconds());
      const Stopwatch updating;
      if (!learner.update(adamw).applied) fail(kExitNumerics, "training: the gradient's norm is not finite");
      r.update = std::min(r.update, updating.seconds());
    }
    const double n = l.pack_tokens;
    r.limit = training_limit(config, b.dtype(), peaks, n, n * (length + 1) / 2, pack.head_rows.size());
    r.update_limit = update_limit(config, peaks);
    rows.push_back(r);
  }
  return rows;
}

double decode_limit(const ModelConfig& c, DType t, const Peaks& peaks, double batch, double context, double cached) {
  const double size = dtype_size(t);
  // An embedding that is not the head is read by the row.
  const double weights = static_cast<double>(c.parameters()) - (c.tied ? 0 : double{1} * c.vocab * c.hidden);
  const double kv = 2.0 * c.layers * c.attention().kv_width() * cached;
  return std::max((weights + kv) * size / peaks.copy, c.forward_flops(batch, batch * context, batch) / peaks.of(t));
}
double training_limit(const ModelConfig& c, DType t, const Peaks& peaks, double tokens, double pairs, double head) {
  return 3 * c.forward_flops(tokens, pairs, head) / peaks.of(t);
}
double update_limit(const ModelConfig& c, const Peaks& peaks) {
  // The norm reads the gradient; AdamW reads and writes the master (bf16 and its remainder, or f32), two moments and
  // the gradient.
  return double(c.parameters()) * (4 + 2 * 16) / peaks.copy;
}
StepLimit step_limit(const ModelConfig& c, DType t, const Peaks& peaks, int prompts, int group, int prompt,
                     int response, int batch, int updates) {
  const double P = prompt, R = response, sequences = double{1} * prompts * group;
  const double prefill = c.forward_flops(prompts * P, prompts * P * (P + 1) / 2, sequences) / peaks.of(t);
  const double together = std::min<double>(batch, sequences), rounds = sequences / together;
  double decode = 0;
  for (int i = 1; i < response; ++i)
    decode += rounds * decode_limit(c, t, peaks, together, P + i, together / group * P + together * i);
  const double rows = prompts * P + sequences * R,
               pairs = prompts * P * (P + 1) / 2 + sequences * R * (P + (R + 1) / 2);
  return {prefill + decode, training_limit(c, t, peaks, rows, pairs, sequences * R) + updates * update_limit(c, peaks)};
}

}  // namespace dapo::bench
