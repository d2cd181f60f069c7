#include "host/train/sft.h"

#include <algorithm>
#include <cmath>

#include "core/nvtx.h"
#include "core/philox.h"
#include "host/train/draw.h"
#include "host/train/encode_prompts.h"
#include "host/train/objective.h"
#include "host/train/packing.h"

namespace dapo {
namespace {

struct TokenizedExample {
  std::vector<int32_t> prompt, response;
};

/// Every example whose prompt fits. Its response ends with the model's first end id or is cut.
std::vector<TokenizedExample> encode_examples(const Config& config, const ModelConfig& model,
                                              const Tokenizer& tokenizer, const Dataset& data, Progress& progress) {
  const PromptEncoder encoder(config.data, config.model.path, tokenizer);
  if (const std::string date = encoder.date_text(); !date.empty()) progress.note(date.c_str());
  const int32_t end = encoder.stop_ids(model).front();
  const size_t most = config.data.max_response_length;
  EncodedPrompts prompts = encode_prompts(config.data, encoder, data, "fine-tuning");
  std::vector<TokenizedExample> examples;
  size_t cut = 0;
  for (size_t i = 0; i < prompts.ids.size(); ++i) {
    std::vector<int32_t> response = tokenizer.encode(data[prompts.examples[i]].response);
    response.push_back(end);
    cut += response.size() > most;
    if (response.size() > most) response.resize(most);
    check_positions(model, config.model.path, prompts.ids[i].size(), response.size());
    examples.push_back({std::move(prompts.ids[i]), std::move(response)});
  }
  if (prompts.dropped + cut > 0)
    progress.note(fmt::format("{} of {} rows dropped (prompt over {} tokens), {} responses cut at {} tokens",
                              prompts.dropped, data.size(), config.data.max_prompt_length, cut, most)
                      .c_str());
  return examples;
}

/// `count` distinct indices below n, in random order, keyed by (seed, step).
std::vector<size_t> draw_examples(uint64_t seed, int32_t step, size_t n, size_t count) {
  std::vector<size_t> chosen;
  std::vector<uint8_t> chosen_before(n, 0);
  count = std::min(count, n);
  for (int32_t k = 0; chosen.size() < count; ++k) {
    const double u = draw(seed, {step, kSftExamples, 0}, k);
    const size_t i = std::min<size_t>(n - 1, u * n);
    if (chosen_before[i]) continue;
    chosen_before[i] = 1;
    chosen.push_back(i);
  }
  return chosen;
}

}  // namespace

std::string check_sft(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& data,
                      Progress& progress) {
  const std::vector<TokenizedExample> examples = encode_examples(config, weights.config(), tokenizer, data, progress);
  const ModelMemory memory(weights, sft_limits(config, weights.config(), weights.backend()));
  return fmt::format("{} rows, {} steps of {}\n{}\n{}", examples.size(), config.sft.steps, config.sft.batch_size,
                     shown_tokens("first prompt", tokenizer, examples[0].prompt),
                     shown_tokens("its response", tokenizer, examples[0].response));
}

SftMetrics run_sft(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& data,
                   Progress& progress, const std::function<void(const SftMetrics&)>& on_step) {
  const std::vector<TokenizedExample> examples = encode_examples(config, weights.config(), tokenizer, data, progress);
  ModelMemory memory(weights, sft_limits(config, weights.config(), weights.backend()));
  Learner learner(memory);
  learner.begin();
  const SftSection& c = config.sft;
  const PackLimits limits = pack_limits(config, learner);
  SftMetrics m;
  int64_t applied = 0, total_tokens = 0;
  int refused = 0;
  for (m.step = 1; m.step <= c.steps; ++m.step) {
    const NvtxRange range("sft step");
    const Stopwatch watch;
    std::vector<PackInput> batch;
    double targets = 0;
    for (size_t i : draw_examples(config.trainer.seed, m.step, examples.size(), c.batch_size)) {
      batch.push_back({examples[i].prompt, {PackResponse{examples[i].response, {}, 1.0f}}});
      targets += examples[i].response.size();
    }
    m.loss = 0;
    m.tokens = 0;
    for (MicroBatch& packed : pack_groups(batch, limits)) {
      Pack& p = packed.pack;
      std::fill(p.weight.begin(), p.weight.end(), float(1 / targets));
      learner.train(p, 1.0f, DapoLoss{});
      for (float loss : p.loss) m.loss += loss / targets;
      m.tokens += p.ids.size();
      progress.report(Phase::update, m.step, c.steps, total_tokens + m.tokens);
    }
    m.lr = sft_learning_rate(c, m.step);
    Learner::UpdateResult r{0, false};
    if (std::isfinite(m.loss))
      r = learner.update({.lr = float(m.lr),
                          .beta1 = float(c.beta1),
                          .beta2 = float(c.beta2),
                          .eps = float(c.eps),
                          .weight_decay = float(c.weight_decay),
                          .step = applied + 1,
                          .max_norm = float(c.grad_clip)});
    else
      learner.zero_gradients();
    m.grad_norm = r.grad_norm;
    applied += r.applied;
    refused = r.applied ? 0 : refused + 1;
    if (!r.applied)
      progress.note(fmt::format("step {}: loss or gradient is not finite, update refused", m.step).c_str());
    if (refused >= config.trainer.nonfinite_patience)
      fail(kExitNumerics, "step {}: {} updates refused in a row, numbers are not finite: lower sft.lr", m.step,
           refused);
    m.seconds = watch.seconds();
    total_tokens += m.tokens;
    if (on_step) on_step(m);
  }
  m.step = c.steps;
  return m;
}

}  // namespace dapo
