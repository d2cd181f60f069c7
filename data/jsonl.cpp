#include <simdjson.h>

#include "core/check.h"
#include "data/lines.h"
#include "data/rows.h"

namespace dapo {

static_assert(simdjson::SIMDJSON_PADDING <= kLinePadding);

void read_jsonl(const std::string& path, RowParser& parser, const RowSink& sink) {
  LineReader lines(path);
  for (std::string_view line; lines.next(line);)
    sink(
        parser.parse(line.data(), line.size(), line.size() + kLinePadding, fmt::format("{}:{}", path, lines.number())));
}

}  // namespace dapo
