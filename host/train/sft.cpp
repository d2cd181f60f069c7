#include "host/train/sft.h"

#include <algorithm>
#include <cmath>

#include "core/nvtx.h"
#include "core/philox.h"
#include "host/train/objective.h"
#include "host/train/packing.h"
#include "host/train/prompts.h"

namespace dapo {
namespace {

struct Row {
  std::vector<int32_t> prompt, response;
};

/// Prompt and response of every row that fits; the response ends with the model's first end id or is cut.
std::vector<Row> encode_rows(const Config& config, const Model& model, const Tokenizer& tokenizer, const Dataset& data,
                             Progress& progress) {
  const PromptEncoder encoder(config.data, config.model.path, tokenizer);
  const int32_t end = encoder.stop_ids(model.config()).front();
  const size_t most = static_cast<size_t>(config.data.max_response_length);
  std::vector<Row> rows;
  size_t dropped = 0, cut = 0;
  for (const Example& e : data) {
    Row r{encoder.encode(e), tokenizer.encode(e.response)};
    if (r.prompt.empty() || static_cast<int>(r.prompt.size()) > config.data.max_prompt_length) {
      if (config.data.overlong_prompts == OverlongPrompts::error)
        fail_input(
            "row {}: a prompt of {} tokens, data.max_prompt_length is {} (or set data.overlong_prompts = "
            "\"drop\")",
            e.id, r.prompt.size(), config.data.max_prompt_length);
      ++dropped;
      continue;
    }
    r.response.push_back(end);
    cut += r.response.size() > most;
    if (r.response.size() > most) r.response.resize(most);
    check_positions(model.config(), config.model.path, static_cast<int64_t>(r.prompt.size()),
                    static_cast<int64_t>(r.response.size()));
    rows.push_back(std::move(r));
  }
  if (rows.empty())
    fail_input("no row is left: {} rows, {} with prompts longer than data.max_prompt_length = {}", data.size(), dropped,
               config.data.max_prompt_length);
  if (dropped + cut > 0)
    progress.note(fmt::format("{} of {} rows dropped (prompt over {} tokens), {} responses cut at {} tokens", dropped,
                              data.size(), config.data.max_prompt_length, cut, most)
                      .c_str());
  return rows;
}

/// `count` distinct rows of n, in random order, keyed by (seed, step).
std::vector<size_t> draw_rows(uint64_t seed, int64_t step, size_t n, size_t count) {
  std::vector<size_t> chosen;
  std::vector<uint8_t> taken(n, 0);
  count = std::min(count, n);
  for (int32_t k = 0; chosen.size() < count; ++k) {
    const size_t i = std::min(n - 1, static_cast<size_t>(double{draw(seed, {static_cast<int32_t>(step), -2, 0}, k)} *
                                                         static_cast<double>(n)));
    if (taken[i]) continue;
    taken[i] = 1;
    chosen.push_back(i);
  }
  return chosen;
}

}  // namespace

std::string check_sft(const Config& config, Model& model, const Tokenizer& tokenizer, const Dataset& data,
                      Progress& progress) {
  const std::vector<Row> rows = encode_rows(config, model, tokenizer, data, progress);
  model.reserve(sft_limits(config, model.config(), model.backend()));
  return fmt::format("{} rows, {} steps of {}\n{}\n{}", rows.size(), config.sft.steps, config.sft.batch_size,
                     shown_tokens("first prompt", tokenizer, rows[0].prompt),
                     shown_tokens("its response", tokenizer, rows[0].response));
}

SftMetrics run_sft(const Config& config, Model& model, const Tokenizer& tokenizer, const Dataset& data,
                   Progress& progress, const std::function<void(const SftMetrics&)>& on_step) {
  const std::vector<Row> rows = encode_rows(config, model, tokenizer, data, progress);
  model.reserve(sft_limits(config, model.config(), model.backend()));
  model.begin_update();
  const SftSection& c = config.sft;
  const PackLimits limits = pack_limits(config, model);
  SftMetrics m;
  int64_t applied = 0, total_tokens = 0;
  int refused = 0;
  for (m.step = 1; m.step <= c.steps; ++m.step) {
    const NvtxRange range("sft step");
    const Stopwatch watch;
    std::vector<PackGroup> batch;
    double targets = 0;
    for (size_t i : draw_rows(config.trainer.seed, m.step, rows.size(), static_cast<size_t>(c.batch_size))) {
      batch.push_back({rows[i].prompt, {PackResponse{rows[i].response, {}, 1.0f}}});
      targets += static_cast<double>(rows[i].response.size());
    }
    m.loss = 0;
    m.tokens = 0;
    for (PackedGroups& packed : pack_groups(batch, limits)) {
      Pack& p = packed.pack;
      std::fill(p.weight.begin(), p.weight.end(), static_cast<float>(1 / targets));
      model.train(p, 1.0f, DapoLoss{});
      for (float loss : p.loss) m.loss += loss / targets;
      m.tokens += static_cast<int64_t>(p.ids.size());
      progress.report(Phase::update, m.step, c.steps, total_tokens + m.tokens);
    }
    m.lr = sft_learning_rate(c, m.step);
    Model::UpdateResult r{0, false};
    if (std::isfinite(m.loss))
      r = model.update({static_cast<float>(m.lr), static_cast<float>(c.beta1), static_cast<float>(c.beta2),
                        static_cast<float>(c.eps), static_cast<float>(c.weight_decay), applied + 1,
                        static_cast<float>(c.grad_clip)});
    else
      model.backend().zero(model.gradients());
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
