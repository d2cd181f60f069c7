#include "host/app/response_lines.h"

namespace dapo {

JsonLine& add_verdict(JsonLine& line, const Verdict& verdict) {
  line.add("pred", verdict.pred).add("reason", verdict.reason);
  if (!verdict.terms.empty()) line.add("terms", verdict.terms);
  return line;
}

void write_responses(LineWriter& out, const EvalResult& result, const Tokenizer& tokenizer, const std::string& model) {
  for (const SetResult& set : result.sets)
    for (const EvalProblem& p : set.all) {
      const std::string prompt = tokenizer.decode(p.group.prompt, false);
      for (size_t i = 0; i < p.group.samples.size(); ++i) {
        const Response& response = p.group.samples[i].response;
        const Verdict& verdict = p.group.samples[i].verdict;
        JsonLine line;
        if (!model.empty()) line.add("model", model);
        line.add("set", set.name)
            .add("id", p.id)
            .add("sample", int64_t(i))
            .add("prompt", prompt)
            .add("response", tokenizer.decode(response.shown()))
            .add("ground_truth", p.ground_truth)
            .add("acc", verdict.acc);
        add_verdict(line, verdict)
            .add("tokens", std::ssize(response.ids))
            .add("finish_reason", finish_name(response.finish))
            .add("prompt_ids", p.group.prompt)
            .add("ids", response.ids);
        out.line(line.str());
      }
    }
}

}  // namespace dapo
