// The part of report.html that shows responses.
#include <fmt/format.h>

#include <array>
#include <cmath>

#include "host/app/html.h"
#include "host/app/report.h"

namespace dapo {
namespace {

constexpr size_t kMostTokens = 1500, kMostText = 6000, kMostPrompt = 1200;

/// Least log-prob of each shade; below the last one is the darkest.
constexpr std::array kShades = {-0.1f, -0.5f, -1.0f, -2.0f, -4.0f, -8.0f};

size_t shade(float log_prob) {
  size_t i = 0;
  while (i < kShades.size() && !(log_prob >= kShades[i])) ++i;
  return i;
}

std::string number(double x, const char* name, const char* format = "{:.4g}") {
  return std::isfinite(x) ? fmt::format("<span>{} {}</span>", name, fmt::format(fmt::runtime(format), x)) : "";
}

std::string verdict(const RolloutRow& r) {
  if (r.acc) return R"(<span class="right">&#10003; right</span>)";
  const bool judged = std::isfinite(r.reward);
  return judged ? R"(<span class="wrong">&#10007; wrong</span>)" : R"(<span class="unjudged">? not judged</span>)";
}

std::string sample_html(const RolloutRow& r, const Tokenizer* tokenizer) {
  std::string out = R"(<article class="sample"><header>)" + verdict(r);
  out += fmt::format("<span>answer <b>{}</b>, expected <b>{}</b></span>",
                     html(shortened(r.pred.empty() ? "none" : r.pred, 200)), html(shortened(r.ground_truth, 200)));
  if (!r.reason.empty()) out += fmt::format("<span>{}</span>", html(shortened(r.reason, 300)));
  out += number(r.shaped, "reward", "{:+.3g}") + number(r.advantage, "advantage", "{:+.3f}") +
         number(r.tokens, "tokens", "{:.0f}");
  if (!r.finish.empty() && r.finish != "stop") out += fmt::format("<span>cut ({})</span>", html(r.finish));
  if (!r.kept) out += "<span>not trained on</span>";
  out += "</header>";
  out += fmt::format(R"(<pre class="prompt">{}</pre>)", html(shortened(r.prompt, kMostPrompt)));
  return out + "<pre>" + colored_tokens(r, tokenizer) + "</pre></article>\n";
}

}  // namespace

std::string colored_tokens(const RolloutRow& row, const Tokenizer* tokenizer) {
  if (tokenizer == nullptr || row.log_probs.empty()) return html(shortened(row.response, kMostText));
  std::string out, held;
  StreamDecoder decoder(*tokenizer, false);
  float least = 0;  // of the tokens whose text is not complete yet
  double sum = 0;
  int tokens = 0;
  const auto flush = [&](const std::string& text) {
    if (text.empty()) return;
    if (const size_t s = shade(least); s == 0)
      out += html(text);
    else
      out += fmt::format(R"(<span class="t{}" title="log-prob {:.2f}{}">{}</span>)", s, sum,
                         tokens > 1 ? fmt::format(", {} tokens", tokens) : "", html(text));
    least = 0, sum = 0, tokens = 0;
  };
  size_t shown = 0;
  for (; shown < std::min(row.ids.size(), kMostTokens); ++shown) {
    const float p = row.log_probs[shown];
    least = std::min(least, std::isfinite(p) ? p : -100.0f);
    sum += p;
    ++tokens;
    if (row.ids[shown] >= 0 && row.ids[shown] < tokenizer->vocab_size()) flush(decoder.push(row.ids[shown]));
  }
  flush(decoder.finish());
  if (shown < row.ids.size())
    out += fmt::format(R"(<span class="soft"> ... {} more tokens</span>)", row.ids.size() - shown);
  return out;
}

std::string samples_section(std::span<const RunRecord> runs) {
  std::string out;
  for (const RunRecord& run : runs)
    for (const StepSamples& step : run.samples) {
      if (step.rows.empty()) continue;
      out += fmt::format("<h3>{}step {}</h3><div class=\"samples\">\n", runs.size() > 1 ? html(run.label) + ", " : "",
                         step.step);
      for (const RolloutRow& r : step.rows) out += sample_html(r, run.tokenizer.get());
      out += "</div>\n";
    }
  if (out.empty()) return "";
  std::string key = R"(<p class="key">Tokens by log-prob when drawn:<i>)" + fmt::format("above {:g}</i>", kShades[0]);
  for (size_t i = 0; i + 1 < kShades.size(); ++i)
    key += fmt::format(R"(<i class="t{}">{:g} to {:g}</i>)", i + 1, kShades[i], kShades[i + 1]);
  key += fmt::format(R"(<i class="t{}">below {:g}</i></p>)", kShades.size(), kShades.back());
  return "<h2>Responses</h2>\n" + key + "\n" + out;
}

}  // namespace dapo
