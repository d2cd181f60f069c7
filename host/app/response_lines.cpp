#include "host/app/response_lines.h"

namespace dapo {

JsonLine& add_verdict(JsonLine& line, const Verdict& verdict) {
  line.add("pred", verdict.pred).add("reason", verdict.reason);
  if (!verdict.terms.empty()) line.add("terms", verdict.terms);
  return line;
}

}  // namespace dapo
