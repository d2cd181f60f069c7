// `dapo doctor`: what is wrong with a model folder, a dataset, a config or this machine, before a run finds out; each
// finding with what to do about it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "data/dataset.h"
#include "host/train/settings.h"
#include "model/config.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

enum class Severity : uint8_t {
  ok,
  note,     ///< good to know
  warning,  ///< a run starts, and is probably not what was meant
  error     ///< a run would not start, or could not learn
};

struct Finding {
  Severity severity;
  std::string what;
  std::string todo = {};  ///< what to do; "" if nothing
};

/// Findings about one thing.
struct Diagnosis {
  std::string subject;
  std::vector<Finding> findings = {};

  template <class... A>
  void add(Severity severity, std::string todo, fmt::format_string<A...> text, A&&... args) {
    findings.push_back({severity, fmt::format(text, std::forward<A>(args)...), std::move(todo)});
  }
  size_t count(Severity severity) const;
  /// Subject, then one line a finding and one for what to do.
  std::string text() const;
};

/// What a model and rows are for.
enum class Rows : uint8_t { train, test, fine_tune };
/// config.json, weights against it, tokenizer against the vocabulary, stop ids, chat template. `tokenizer` gets the
/// folder's, null if it cannot be loaded. `use`: fine-tuning may start without weights.
Diagnosis diagnose_model(const std::string& folder, std::unique_ptr<const Tokenizer>& tokenizer,
                         const DataSection& data, Rows use);

/// Duplicates, conflicting answers, templates applied twice, prompts over the limit, answers that the verifier cannot
/// read, token statistics. `tokenizer`: of the model, or null: no tokens are counted. `verifier_chosen`: false if
/// reward.verifier is only the default: then the report says which verifiers read the answers.
Diagnosis diagnose_rows(const std::string& name, const Dataset& rows, Rows use, const Config& config,
                        const Tokenizer* tokenizer, bool verifier_chosen);
/// Problems of `test` that are in `train` too.
Finding common_problems(const Dataset& train, const Dataset& test);

/// Processors, instruction set, GPU and driver, memory, limits, and the disk under trainer.run_dir.
Diagnosis diagnose_machine(const Config& config);

/// A response that ends with exactly this answer, in the form that the verifier looks for; "" for a verifier whose
/// answers have no such form.
std::string response_with_answer(std::string_view verifier, std::string_view answer);

}  // namespace dapo
