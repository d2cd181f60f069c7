// report.html: one page about one run or several side by side, without network.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "host/app/run_record.h"

namespace dapo {

/// The page. Sections: figures of the last step, alarms, charts, sample responses, settings.
std::string report_html(std::span<const RunRecord> runs);

/// Reads the runs and writes the page. `out`: "" for RUN/report.html, or report.html here if there are several; a file
/// of that name that is not such a page is left alone (Error, exit 2). Returns the file's name.
std::string write_report(const std::vector<std::string>& folders, const std::string& out);

// ---- its parts

/// Charts of all figures that the runs have; those that no chart was designed for, and constant ones, at the end.
std::string charts_section(std::span<const RunRecord> runs);
/// Responses with verdict, their tokens coloured by log-prob.
std::string samples_section(std::span<const RunRecord> runs);
/// The response with each token in a span by its log-prob; plain without a tokenizer.
std::string colored_tokens(const RolloutRow& row, const Tokenizer* tokenizer);

}  // namespace dapo
