// Datasets: what the trainer asks, what it is judged against, and what SFT imitates. JSONL (one object a line), a JSON
// array of objects, either of them compressed by gzip, or Parquet. docs/data.md shows a row of every layout.
//
// Layouts understood without any option, field by field, the first that is present and not null:
//   prompt    prompt (text, or messages [{role, content}] or [{from, value}]), messages, conversations, instruction
//             (joined with input or context), question, problem, input; system and history come before it
//   answer    reward_model.ground_truth (verl), ground_truth, answer, final_answer, expected_answer, output, solution;
//             a number is written shortest (70.0 -> "70"), a list of strings holds accepted answers, an object stays
//             JSON (countdown)
//   response  response, completion, output of an instruction; else the last message where it is the assistant's
//   tools, chat_template_kwargs: what the chat template gets beside the messages
// An answer that a text marks is taken out of it (data/answer.h): GSM8K's "... #### N", MATH's last \boxed{}; the whole
// text stays in `solution`.
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
  std::string more = {};  ///< the whole message as JSON where it has more than these; "" where it has not
  bool operator==(const Message&) const = default;
};

struct Example {
  std::string id;                 ///< "<row>-<16 hex digits>": row in the set as loaded, hash of prompt and answer
  uint64_t problem = 0;           ///< hash of the prompt: equal for copies of one problem
  std::vector<Message> messages;  ///< a conversation; empty where the prompt is plain text. Where answers are asked
                                  ///< for, a last message of the assistant is a prefill: responses go on from it
  std::string prompt;             ///< plain text; empty where there are messages
  std::string tools;              ///< JSON list of functions that the chat template shows; empty for none
  std::string variables;          ///< JSON object of further variables for the chat template; empty for none
  std::string answer;             ///< ground truth for the verifier (or several, kAnswerSeparator between them); empty
                                  ///< where the row has none
  std::string solution;           ///< the whole text that `answer` was taken from, where it is longer
  std::string response;           ///< SFT target; empty where the row has none
  std::string data_source;

  /// The prompt's text without roles: `prompt`, or the contents of the messages joined by blank lines.
  std::string text() const;
};

enum class RowFormat : uint8_t { automatic, countdown };
constexpr std::string_view choices(RowFormat) {
  return "auto|countdown";
}

struct DatasetOptions {
  std::string prompt_key, answer_key, response_key;  ///< override the names above; dots go into objects: "a.b"
  bool need_answer = false;                          ///< a row without an answer, or with a text for one, is an error
  bool need_response = false;                        ///< a row without a response is an error
  bool unique = false;  ///< keep the first row of each problem as it is read: DAPO's own file holds each 100 times
  RowFormat format = RowFormat::automatic;  ///< countdown: {"input":"30,100,93","output":"23"} rows
};

/// Rows with the same prompt but different answers.
struct Conflict {
  std::string id;  ///< the first such row
  std::vector<std::string> answers;
};

struct DedupeReport {
  size_t rows = 0, problems = 0;  ///< before, after
  size_t copies = 0;              ///< rows a problem, where it is the same for all (AIME 2024: 32); else 0
  std::vector<Conflict> conflicts;
  /// One line for the log: "960 rows are 30 problems, each 32 times; ...".
  std::string text() const;
};

class Dataset {
 public:
  /// Reads files in order, one set; a path may be a folder or a pattern (data_files). Error (exit 2) naming file:line
  /// and the reason for: a line that is not a JSON object, is not UTF-8, nests deeper than 64, is longer than 16 MiB; a
  /// row without a prompt or a needed field; an empty set. Byte order mark, CRLF, blank lines, and what Python writes
  /// beyond JSON (NaN, integers of any length) are tolerated. Memory: the rows, and one line.
  static Dataset load(const std::vector<std::string>& paths, const DatasetOptions& options = {});
  static Dataset load(const std::string& path, const DatasetOptions& options = {}) {
    return load(std::vector<std::string>{path}, options);
  }

  size_t size() const { return rows_.size(); }
  const Example& operator[](size_t i) const { return rows_[i]; }
  auto begin() const { return rows_.begin(); }
  auto end() const { return rows_.end(); }

  /// What loading with `unique` left out; rows is 0 otherwise.
  const DedupeReport& left_out() const { return left_out_; }

  /// What dedupe() would do, changing nothing.
  DedupeReport duplicates() const;
  /// Keeps the first row of each problem, in order.
  DedupeReport dedupe();

  /// Hash of every row in order: a checkpoint stores it, so that a set exchanged under a resume is noticed.
  uint64_t fingerprint() const;

 private:
  std::vector<Example> rows_;
  DedupeReport left_out_;
};

/// The files that a user's path means: a file; the data files of a folder; those that a pattern (*, ?, [...]) matches,
/// in the order of their names. Error (exit 2): nothing there, or a folder whose files are not one set.
std::vector<std::string> data_files(const std::string& path);

}  // namespace dapo
