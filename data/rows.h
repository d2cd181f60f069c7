// Internal to data/: conversion of a JSON object to an Example, and the two file formats that provide objects.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "data/dataset.h"

namespace dapo {

/// Converts JSON objects to rows. Every file format uses it, so all formats support the same layouts.
class RowParser {
 public:
  explicit RowParser(const DatasetOptions& options);
  ~RowParser();
  /// `json` is one object; every error starts with `where` ("file:12"). Rows are numbered in the order of the calls.
  /// The text may be longer than `length` says: `capacity` - length bytes after it are readable (else it is copied).
  Example parse(const char* json, size_t length, size_t capacity, std::string_view where);
  /// Whether a field of this name (the first part of a dotted one) may be needed.
  bool wants(std::string_view column) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// {kUnreadable: "type"} represents a value of an unsupported type: an error once the field is needed.
constexpr std::string_view kUnreadable = "\x01type";

/// Reads one file and passes its rows on, one at a time.
using RowSink = std::function<void(Example&&)>;
void read_jsonl(const std::string& path, RowParser& parser, const RowSink& sink);
void read_parquet(const std::string& path, RowParser& parser, const RowSink& sink);

}  // namespace dapo
