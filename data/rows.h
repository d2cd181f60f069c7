// Inside data/: how one JSON object becomes an Example, and the two file formats that bring objects.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "data/dataset.h"

namespace dapo {

/// Turns JSON objects into rows. Reads of any file format go through it, so all formats know the same layouts.
class RowParser {
 public:
  explicit RowParser(const DatasetOptions& options);
  ~RowParser();
  /// `json` is one object; `where` ("file:12") opens every error. Rows are numbered in the order of the calls.
  /// The text may be longer than `length` says: `capacity` - length bytes after it are readable (else it is copied).
  Example parse(const char* json, size_t length, size_t capacity, std::string_view where);
  /// Whether a row's field of this name (the first part of a dotted one) may be looked at.
  bool wants(std::string_view column) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// {kUnreadable: "type"} stands for a value that a format has and we cannot read: an error once the field is wanted.
constexpr std::string_view kUnreadable = "\x01type";

/// Reads one file and hands its rows on, one at a time.
using RowSink = std::function<void(Example&&)>;
void read_jsonl(const std::string& path, RowParser& parser, const RowSink& sink);
void read_parquet(const std::string& path, RowParser& parser, const RowSink& sink);

}  // namespace dapo
