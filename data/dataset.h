// Datasets: prompts, ground truths, and responses for SFT. JSONL (one object per line), a JSON array of objects,
// either of them compressed by gzip, or Parquet. docs/data.md shows a row of every layout.
//
// Layouts recognized without any option; for each field the first column that is present and not null:
//   prompt    prompt (text, or messages [{role, content}] or [{from, value}]), messages, conversations, instruction
//             (joined with input or context), question, problem, input; system and history come before it
//   answer    reward_model.ground_truth (verl), ground_truth, answer, final_answer, expected_answer, output, solution;
//             a number in its shortest form (70.0 -> "70"), a list of strings is several accepted answers, an object
//             stays JSON (countdown)
//   response  response, completion, output of an instruction; else the last message if it is the assistant's
//   tools, chat_template_kwargs: the chat template's other arguments
// An answer marked in a text is extracted (data/answer.h): GSM8K's "... #### N", MATH's last \boxed{}; the whole text
// is kept in `solution`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/answers.h"

namespace dapo {

struct Message {
  std::string role, content;
  std::string more = {};  ///< the whole message as JSON if it has other fields; else ""
  bool operator==(const Message&) const = default;
};

struct Example {
  std::string id;                 ///< "<row>-<16 hex digits>": row in the set as loaded, hash of prompt and answer
  uint64_t problem = 0;           ///< hash of the prompt: equal for copies of one problem
  std::vector<Message> messages;  ///< a conversation; empty if the prompt is plain text. If answers are needed, a
                                  ///< final assistant message is a prefill that responses continue
  std::string prompt;             ///< plain text; empty if there are messages
  std::string tools;              ///< JSON list of functions that the chat template shows; empty for none
  std::string variables;          ///< JSON object of further variables for the chat template; empty for none
  std::string answer;             ///< ground truth for the verifier (or several, separated by kAnswerSeparator); empty
                                  ///< if the row has none
  std::string solution;           ///< the whole text that `answer` was extracted from, if longer
  std::string response;           ///< SFT target; empty if the row has none
  std::string data_source;

  /// The prompt's text without roles: `prompt`, or the contents of the messages joined by blank lines.
  std::string text() const;
};

enum class RowFormat : uint8_t { automatic, countdown };
constexpr std::string_view choices(RowFormat) {
  return "auto|countdown";
}

struct DatasetOptions {
  std::string prompt_key, answer_key, response_key;  ///< override the names above; dots address members: "a.b"
  bool need_answer = false;    ///< a row without an answer, or with a text instead of one, is an error
  bool need_response = false;  ///< a row without a response is an error
  bool unique = false;  ///< keep only the first row of each problem while reading: DAPO's own file has each 100 times
  RowFormat format = RowFormat::automatic;  ///< countdown: {"input":"30,100,93","output":"23"} rows
};

/// Rows with the same prompt but different answers.
struct Conflict {
  std::string id;  ///< the first such row
  std::vector<std::string> answers;
};

struct DedupeReport {
  size_t rows = 0, problems = 0;  ///< before, after
  size_t copies = 0;              ///< rows per problem if all have the same number (AIME 2024: 32); else 0
  std::vector<Conflict> conflicts;
  /// One line for the log: "960 rows are 30 problems, each 32 times; ...".
  std::string text() const;
};

class Dataset {
 public:
  /// Reads files in order as one dataset; a path may be a folder or a pattern (data_files). Error (exit 2) with
  /// file:line and reason for: a line that is not a JSON object, is not UTF-8, nests deeper than 64, is longer than 16
  /// MiB; a row without a prompt or a needed field; an empty dataset. Byte order mark, CRLF, blank lines, and Python's
  /// extensions of JSON (NaN, integers of any length) are accepted. Memory: the rows, and one line.
  static Dataset load(const std::vector<std::string>& paths, const DatasetOptions& options = {});
  static Dataset load(const std::string& path, const DatasetOptions& options = {}) {
    return load(std::vector<std::string>{path}, options);
  }

  size_t size() const { return rows_.size(); }
  const Example& operator[](size_t i) const { return rows_[i]; }
  auto begin() const { return rows_.begin(); }
  auto end() const { return rows_.end(); }

  /// The duplicates that loading with `unique` left out; rows is 0 otherwise.
  const DedupeReport& left_out() const { return left_out_; }

  /// The result that dedupe() would have; changes nothing.
  DedupeReport duplicates() const;
  /// Keeps the first row of each problem, in order.
  DedupeReport dedupe();

  /// Hash of all rows in order: a checkpoint stores it to detect a dataset that changed before a resume.
  uint64_t fingerprint() const;

 private:
  std::vector<Example> rows_;
  DedupeReport left_out_;
};

/// The files that a user's path stands for: a file; the data files of a folder; those that match a pattern (*, ?,
/// [...]), sorted by name. Error (exit 2): no such file, or a folder whose files are not one dataset.
std::vector<std::string> data_files(const std::string& path);

}  // namespace dapo
