// Parquet through Apache Arrow. Each row is written as JSON and goes through the RowParser, so a Parquet file and its
// JSONL twin give the same rows by construction.
#include "core/check.h"
#include "data/rows.h"

#ifndef DAPO_ARROW

namespace dapo {
void read_parquet(const std::string& path, RowParser&, const RowSink&) {
  fail_input(
      "{}: this build reads no Parquet: install Apache Arrow (apt-get install libparquet-dev, or `make deps`) and make "
      "again, or convert the file to .jsonl",
      path);
}
}  // namespace dapo

#else

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>

#include <algorithm>
#include <cmath>

namespace dapo {

namespace {
void append_text(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\u{:04x}", static_cast<int>(c));
    else
      out += c;
  }
  out += '"';
}

template <class A>
void append_number(const arrow::Array& column, int64_t row, std::string& out) {
  const auto v = static_cast<const A&>(column).Value(row);
  if constexpr (std::is_floating_point_v<decltype(v)>) {
    if (!std::isfinite(v)) return void(out += "null");
  }
  out += fmt::format("{}", v);
}

/// Writes one value; types that no field of ours has (dates, decimals, maps) become null.
void append_json(const arrow::Array& column, int64_t row, std::string& out) {
  if (column.IsNull(row)) return void(out += "null");
  const auto list = [&](const auto& lists) {
    out += '[';
    for (int64_t i = lists.value_offset(row), end = i + lists.value_length(row); i < end; ++i) {
      append_json(*lists.values(), i, out);
      out += i + 1 < end ? "," : "";
    }
    out += ']';
  };
  switch (column.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY:
      return append_text(static_cast<const arrow::BinaryArray&>(column).GetView(row), out);
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY:
      return append_text(static_cast<const arrow::LargeBinaryArray&>(column).GetView(row), out);
    case arrow::Type::BOOL:
      return void(out += static_cast<const arrow::BooleanArray&>(column).Value(row) ? "true" : "false");
    case arrow::Type::INT8:
      return append_number<arrow::Int8Array>(column, row, out);
    case arrow::Type::INT16:
      return append_number<arrow::Int16Array>(column, row, out);
    case arrow::Type::INT32:
      return append_number<arrow::Int32Array>(column, row, out);
    case arrow::Type::INT64:
      return append_number<arrow::Int64Array>(column, row, out);
    case arrow::Type::UINT8:
      return append_number<arrow::UInt8Array>(column, row, out);
    case arrow::Type::UINT16:
      return append_number<arrow::UInt16Array>(column, row, out);
    case arrow::Type::UINT32:
      return append_number<arrow::UInt32Array>(column, row, out);
    case arrow::Type::UINT64:
      return append_number<arrow::UInt64Array>(column, row, out);
    case arrow::Type::FLOAT:
      return append_number<arrow::FloatArray>(column, row, out);
    case arrow::Type::DOUBLE:
      return append_number<arrow::DoubleArray>(column, row, out);
    case arrow::Type::DICTIONARY: {
      const auto& d = static_cast<const arrow::DictionaryArray&>(column);
      return append_json(*d.dictionary(), d.GetValueIndex(row), out);
    }
    case arrow::Type::LIST:
      return list(static_cast<const arrow::ListArray&>(column));
    case arrow::Type::LARGE_LIST:
      return list(static_cast<const arrow::LargeListArray&>(column));
    case arrow::Type::STRUCT: {
      const auto& s = static_cast<const arrow::StructArray&>(column);
      out += '{';
      for (int i = 0; i < s.num_fields(); ++i) {
        if (i > 0) out += ',';
        append_text(s.struct_type()->field(i)->name(), out);
        out += ':';
        append_json(*s.field(i), row, out);  // field() applies the slice's offset
      }
      return void(out += '}');
    }
    default:
      out += "null";
  }
}

/// Arrow's messages may run over several lines.
[[noreturn]] void unreadable(const std::string& path, std::string why) {
  std::replace(why.begin(), why.end(), '\n', ' ');
  fail_input("{}: not readable as Parquet: {}", path, why);
}
void check(const arrow::Status& status, const std::string& path) {
  if (!status.ok()) unreadable(path, status.message());
}
template <class T>
T take(arrow::Result<T> result, const std::string& path) {
  check(result.status(), path);
  return std::move(result).ValueUnsafe();
}
}  // namespace

void read_parquet(const std::string& path, RowParser& parser, const RowSink& sink) {
  try {
    const auto file = take(arrow::io::ReadableFile::Open(path), path);
    parquet::arrow::FileReaderBuilder builder;
    check(builder.Open(file), path);
    std::unique_ptr<parquet::arrow::FileReader> reader;
    check(builder.Build(&reader), path);
    reader->set_batch_size(1024);
    const std::shared_ptr<arrow::RecordBatchReader> batches = take(reader->GetRecordBatchReader(), path);

    std::string json;
    size_t number = 0;
    while (const std::shared_ptr<arrow::RecordBatch> batch = take(batches->Next(), path)) {
      check(batch->Validate(), path);
      const auto table = take(batch->ToStructArray(), path);
      for (int64_t i = 0; i < batch->num_rows(); ++i) {
        json.clear();
        append_json(*table, i, json);
        sink(parser.parse(json.data(), json.size(), json.capacity(), fmt::format("{}: row {}", path, ++number)));
      }
    }
  } catch (const parquet::ParquetException& e) {
    unreadable(path, e.what());
  }
}

}  // namespace dapo

#endif
