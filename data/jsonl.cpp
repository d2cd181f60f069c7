#include "core/check.h"
#include "data/lines.h"
#include "data/rows.h"

namespace dapo {

void read_jsonl(const std::string& path, RowParser& parser, const RowSink& sink) {
  LineReader lines(path);
  for (std::string_view line; lines.next(line);) {
    const std::string where = fmt::format("{}:{}", path, lines.number());
    sink(parser.parse(line.data(), line.size(), line.size() + kLinePadding, where));
  }
}

}  // namespace dapo
