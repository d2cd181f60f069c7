// Datasets: what their rows would do to a run.
#include <algorithm>
#include <array>
#include <unordered_set>

#include "core/answers.h"
#include "core/check.h"
#include "core/choices.h"
#include "host/app/doctor.h"
#include "host/app/unmet.h"
#include "host/train/prompts.h"
#include "host/verify/verify.h"
#include "tokenizer/chat.h"

namespace dapo {
namespace {

/// Verifiers whose ground truths can be checked: those with a form that a response can be written in, and countdown,
/// which reports a ground truth that is not a problem.
constexpr std::string_view kReaders = "math_dapo|gsm8k|boxed|math|exact|countdown";

/// What templates write around a message, for a dataset whose prompts already have it.
constexpr std::array kMarkers = {"<|im_start|>", "<|im_end|>",      "<|start_header_id|>",
                                 "<|eot_id|>",   "<start_of_turn>", "[INST]",
                                 "<|user|>",     "<|assistant|>",   "\nAssistant: <think>"};

std::string first_ids(const std::vector<std::string>& ids) {
  const size_t shown = std::min<size_t>(3, ids.size());
  return fmt::format("{} {}{}", shown == 1 ? "row" : "rows",
                     fmt::join(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                     ids.size() > shown ? ", ..." : "");
}

double percent(size_t part, size_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(std::max<size_t>(1, whole));
}

struct Unread {
  std::vector<std::string> ids;
  std::string example;  ///< the first one's answer, and the verifier's words
};

/// Rows with a ground truth that the verifier judges wrong even in a response that ends with it, or cannot judge.
Unread unread_answers(std::string_view name, const Dataset& rows) {
  const auto verifier = make_verifier(name);
  Unread out;
  for (const Example& row : rows) {
    bool read = false;
    Verdict last;
    for (std::string_view rest = row.answer; !read && !rest.empty();) {
      const size_t cut = std::min(rest.find(kAnswerSeparator), rest.size());
      const std::string_view answer = rest.substr(0, cut);
      rest.remove_prefix(std::min(cut + 1, rest.size()));
      const std::string response = response_with_answer(name, answer);
      last = verifier->verify(response.empty() ? "<answer>1</answer>" : response, answer);
      read = response.empty() ? !last.error : last.acc;
    }
    if (read) continue;
    if (out.ids.empty())
      out.example = fmt::format("\"{}\": {}{}", row.answer.substr(0, 60), last.reason,
                                last.pred.empty() ? "" : fmt::format(", read as \"{}\"", last.pred.substr(0, 60)));
    out.ids.push_back(row.id);
  }
  return out;
}

void check_answers(Diagnosis& out, const Dataset& rows, const Config& config, bool chosen) {
  const std::string& name = config.reward.verifier;
  const bool readable = choice_index(kReaders, name) >= 0;
  if (chosen && !readable) {
    out.add(Severity::note, "", "answers are not checked: reward.verifier = \"{}\" has no fixed form of an answer",
            name);
    return;
  }
  if (chosen) {
    const Unread unread = unread_answers(name, rows);
    const size_t n = unread.ids.size();
    if (n == 0)
      out.add(Severity::ok, "", "answers: {} reads every one of {}", name, rows.size());
    else
      out.add(
          2 * n > rows.size() ? Severity::error : Severity::warning,
          "choose another reward.verifier (without --verifier, dapo doctor compares them), or repair these rows: no "
          "response to them can be right",
          "answers: {} cannot read {} of {} ({:.1f} %): {}; {}", name, n, rows.size(), percent(n, rows.size()),
          first_ids(unread.ids), unread.example);
    return;
  }
  std::string text;
  for (const char* each : {"math_dapo", "boxed", "math", "gsm8k", "exact", "countdown"}) {
    if (choice_index(kVerifierNames, each) < 0) continue;
    const size_t read = rows.size() - unread_answers(each, rows).ids.size();
    if (read > 0) text += fmt::format("{}{} {:.4g} %", text.empty() ? "" : ", ", each, percent(read, rows.size()));
  }
  if (text.empty())
    out.add(Severity::error, "name the column with --set data.answer_key=...", "answers: no verifier reads one");
  else
    out.add(Severity::note, "--verifier NAME (reward.verifier) checks one of them row by row", "answers read: {}",
            text);
}

/// Copies of a text in another.
size_t occurrences(std::string_view text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); !part.empty() && at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

std::string_view trimmed(std::string_view s) {
  const size_t begin = s.find_first_not_of(" \n\t"), end = s.find_last_not_of(" \n\t");
  return begin == s.npos ? std::string_view() : s.substr(begin, end - begin + 1);
}

/// Markers of a template inside the prompt itself, instructions that stand there twice.
void check_twice(Diagnosis& out, const Dataset& rows, const Config& config, const Tokenizer* tokenizer,
                 const std::vector<std::string>& rendered) {
  std::vector<std::string> marked, wrapped, suffixed;
  std::string marker;
  const std::string wrapper = dapo_prompt("\1");
  const std::string_view head = std::string_view(wrapper).substr(0, wrapper.find('\1'));
  const std::string_view instruction = trimmed(head.substr(0, head.find('\n')));
  const std::string_view suffix = trimmed(config.data.prompt_suffix);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string text = rows[i].text();
    const auto found = std::ranges::find_if(kMarkers, [&](const char* m) { return text.find(m) != text.npos; });
    if (found != kMarkers.end()) {
      if (marked.empty()) marker = *found;
      marked.push_back(rows[i].id);
    }
    if (rendered.empty()) continue;
    if (occurrences(rendered[i], instruction) > 1) wrapped.push_back(rows[i].id);
    if (!suffix.empty() && occurrences(rendered[i], suffix) > 1) suffixed.push_back(rows[i].id);
  }
  if (!marked.empty()) {
    const bool raw = config.data.prompt_template == PromptStyle::raw;
    const bool known = tokenizer == nullptr || tokenizer->id_of(marker) >= 0;
    out.add(
        raw && known ? Severity::note : Severity::warning,
        raw && known ? "" : "set data.prompt_template = \"raw\", or use the problem's own text (data.prompt_key)",
        "template: {} of {} prompts contain {}{}: {}", marked.size(), rows.size(), marker,
        raw ? known ? ", which data.prompt_template = \"raw\" leaves as it is" : ", which is not a token of this model"
            : ", so the chat template would be applied twice",
        first_ids(marked));
  }
  if (!wrapped.empty())
    out.add(Severity::warning, "set data.prompt_template = \"auto\"",
            "template: {} of {} prompts have \"{}...\" twice: {}", wrapped.size(), rows.size(),
            instruction.substr(0, 40), first_ids(wrapped));
  if (!suffixed.empty())
    out.add(Severity::warning, "leave data.prompt_suffix out",
            "template: {} of {} prompts already have data.prompt_suffix: {}", suffixed.size(), rows.size(),
            first_ids(suffixed));
  if (marked.empty() && wrapped.empty() && suffixed.empty())
    out.add(Severity::ok, "", "template: applied once{}", rendered.empty() ? " (markers were looked for)" : "");
}

/// "shortest 12, half 80, 95 % 190, longest 411"
std::string quantiles(std::vector<size_t> lengths) {
  std::ranges::sort(lengths);
  const auto at = [&](double q) { return lengths[static_cast<size_t>(q * static_cast<double>(lengths.size() - 1))]; };
  return fmt::format("shortest {}, median {}, 95 % within {}, longest {}", at(0), at(0.5), at(0.95), at(1));
}

/// Token statistics; the prompts as the model sees them.
std::vector<std::string> check_lengths(Diagnosis& out, const Dataset& rows, Rows use, const Config& config,
                                       const Tokenizer& tokenizer) {
  const PromptEncoder encoder(config.data, config.model.path, tokenizer);
  const size_t most = static_cast<size_t>(config.data.max_prompt_length),
               longest_response = static_cast<size_t>(config.data.max_response_length);
  std::vector<std::string> rendered, too_long, empty, responses_too_long;
  std::vector<size_t> prompts, responses;
  for (const Example& row : rows) {
    const std::vector<int32_t> ids = encoder.encode(row);
    prompts.push_back(ids.size());
    if (ids.empty()) empty.push_back(row.id);
    if (ids.size() > most) too_long.push_back(row.id);
    rendered.push_back(tokenizer.decode(ids, false));
    const std::string& text = use == Rows::fine_tune ? row.response : row.solution;
    if (text.empty()) continue;
    responses.push_back(tokenizer.encode(text).size());
    if (responses.back() > longest_response) responses_too_long.push_back(row.id);
  }
  out.add(Severity::ok, "", "prompt tokens: {}", quantiles(prompts));
  if (!responses.empty())
    out.add(Severity::ok, "", "{} tokens: {}", use == Rows::fine_tune ? "response" : "solution", quantiles(responses));
  if (!empty.empty())
    out.add(Severity::warning, "repair or remove these rows; they are left out", "{} prompts are empty: {}",
            empty.size(), first_ids(empty));
  if (!too_long.empty()) {
    const bool all = too_long.size() + empty.size() >= rows.size();
    const bool stops = config.data.overlong_prompts == OverlongPrompts::error;
    out.add(all || stops ? Severity::error : Severity::warning,
            fmt::format("data.max_prompt_length = {} takes all", *std::ranges::max_element(prompts)),
            "{} of {} prompts ({:.1f} %) are longer than data.max_prompt_length = {} and {}: {}", too_long.size(),
            rows.size(), percent(too_long.size(), rows.size()), most, stops ? "stop the run" : "are left out",
            first_ids(too_long));
  }
  if (!responses_too_long.empty())
    out.add(use == Rows::fine_tune ? Severity::warning : Severity::note, "raise data.max_response_length",
            "{} of {} {} ({:.1f} %) are longer than data.max_response_length = {}: {}", responses_too_long.size(),
            responses.size(), use == Rows::fine_tune ? "responses" : "solutions",
            percent(responses_too_long.size(), responses.size()), longest_response, first_ids(responses_too_long));
  return rendered;
}

void check_copies(Diagnosis& out, const Dataset& rows, Rows use, const Config& config) {
  const DedupeReport copies = rows.left_out().rows > 0 ? rows.left_out() : rows.duplicates();
  const bool removed = use == Rows::train ? config.data.unique : use == Rows::test && config.eval.dedupe;
  if (copies.rows == copies.problems)
    out.add(Severity::ok, "", "{} rows, no problem twice", rows.size());
  else
    out.add(removed ? Severity::note : Severity::warning,
            removed                  ? ""
            : use == Rows::fine_tune ? "remove the copies, unless they are other responses to the same prompt"
                                     : fmt::format("set {} = true", use == Rows::train ? "data.unique" : "eval.dedupe"),
            "{}{}", copies.text(), removed ? "; the first of each is used" : "");
  if (!copies.conflicts.empty() && use != Rows::fine_tune) {
    const Conflict& first = copies.conflicts[0];
    out.add(Severity::warning, "remove or repair these rows: one of the answers is wrong",
            "{} problems have conflicting answers: row {} has \"{}\"", copies.conflicts.size(), first.id,
            fmt::join(first.answers, "\" and \""));
  }
}

}  // namespace

std::string response_with_answer(std::string_view verifier, std::string_view answer) {
  if (verifier == "math_dapo") return fmt::format("So it is.\nAnswer: {}", answer);
  if (verifier == "gsm8k") return fmt::format("So it is.\n#### {}", answer);
  if (verifier == "boxed" || verifier == "math") return fmt::format("So it is \\boxed{{{}}}.", answer);
  if (verifier == "exact") return std::string(answer);
  return "";
}

Diagnosis diagnose_rows(const std::string& name, const Dataset& rows, Rows use, const Config& config,
                        const Tokenizer* tokenizer, bool verifier_chosen) {
  Diagnosis out{.subject = name};
  check_copies(out, rows, use, config);
  std::vector<std::string> rendered;
  if (tokenizer != nullptr) {
    try {
      rendered = check_lengths(out, rows, use, config, *tokenizer);
    } catch (const Error& e) {
      out.add(Severity::error, "", "{}", e.what());
    }
  } else {
    out.add(Severity::note, "name a model folder beside it, for token statistics and the template",
            "tokens not counted");
  }
  check_twice(out, rows, config, tokenizer, rendered);
  if (use == Rows::fine_tune) return out;
  check_answers(out, rows, config, verifier_chosen);
  if (verifier_chosen && use == Rows::train)
    for (const std::string& text : unmet_rows(config, rows)) out.add(Severity::warning, "", "{}", text);
  return out;
}

Finding common_problems(const Dataset& train, const Dataset& test) {
  std::unordered_set<uint64_t> known;
  for (const Example& row : train) known.insert(row.problem);
  std::vector<std::string> both;
  for (const Example& row : test)
    if (known.contains(row.problem)) both.push_back(row.id);
  if (both.empty()) return {Severity::ok, "no test problem is in the training set"};
  return {Severity::warning,
          fmt::format("{} of {} test problems are in the training set too: test {}", both.size(), test.size(),
                      first_ids(both)),
          "remove them from one of the two: the evaluation would measure memory"};
}

}  // namespace dapo
