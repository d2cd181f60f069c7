// Parquet through Apache Arrow. Each row is converted to JSON and parsed by RowParser, so a Parquet file and the
// equivalent JSONL give the same rows by construction.
#include "core/check.h"
#include "core/files.h"
#include "data/rows.h"

#ifndef DAPO_ARROW

namespace dapo {
void read_parquet(const std::string& path, RowParser&, const RowSink&) {
  fail_input(
      "{}: this build cannot read Parquet, because Apache Arrow could not be downloaded: `make deps && make` tries "
      "again; or convert the file to .jsonl",
      path);
}
}  // namespace dapo

#else

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>
#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <set>

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

/// A value that RowParser rejects once the field is needed.
void append_unreadable(const std::string& type, std::string& out) {
  out += '{';
  append_text(kUnreadable, out);
  out += ':';
  append_text(type, out);
  out += '}';
}

void append_bytes(std::string_view bytes, const arrow::Array& column, std::string& out) {
  if (simdjson::validate_utf8(bytes.data(), bytes.size()))
    append_text(bytes, out);
  else
    append_unreadable(column.type()->ToString() + " (not UTF-8)", out);
}

/// "2.50" -> "2.5", "03:04:05.000" -> "03:04:05"
std::string without_zeros(std::string text) {
  if (text.find_first_of("eE") == text.npos && text.find('.') != text.npos) {
    text.resize(text.find_last_not_of('0') + 1);
    if (text.ends_with('.')) text.pop_back();
  }
  return text;
}

/// A number; as text if it has more digits than a double holds.
void append_decimal(std::string text, std::string& out) {
  if (text == "-0") text = "0";
  text.size() <= 16 ? void(out += text) : append_text(text, out);
}

/// A half float with the fewest digits that identify it.
std::string half_text(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return "null";
  const double step = std::ldexp(1.0, std::max(exponent, 1) - 25), sign = bits & 0x8000 ? -1 : 1,
               value = sign * step * (exponent == 0 ? fraction : fraction + 1024);
  for (int digits = 1; digits < 6; ++digits)
    if (std::string text = fmt::format("{:.{}g}", value, digits); std::abs(std::stod(text) - value) < step / 2)
      return text;
  return fmt::format("{}", value);
}

template <class A>
void append_number(const arrow::Array& column, int64_t row, std::string& out) {
  const auto v = static_cast<const A&>(column).Value(row);
  if constexpr (std::is_floating_point_v<decltype(v)>) {
    if (!std::isfinite(v)) return void(out += "null");
  }
  out += fmt::format("{}", v);
}

void append_json(const arrow::Array& column, int64_t row, std::string& out);

void append_list(const arrow::Array& values, int64_t begin, int64_t length, std::string& out) {
  out += '[';
  for (int64_t i = 0; i < length; ++i) {
    if (i > 0) out += ',';
    append_json(values, begin + i, out);
  }
  out += ']';
}

/// A map becomes an object; keys that are not text are written as JSON.
void append_map(const arrow::MapArray& map, int64_t row, std::string& out) {
  out += '{';
  for (int64_t i = map.value_offset(row), end = i + map.value_length(row), begin = i; i < end; ++i) {
    if (i > begin) out += ',';
    std::string key;
    append_json(*map.keys(), i, key);
    key.starts_with('"') ? void(out += key) : append_text(key, out);
    out += ':';
    append_json(*map.items(), i, out);
  }
  out += '}';
}

/// Types without a case of their own: bytes, decimals, dates and times (as text); others are not supported.
void append_other(const arrow::Array& column, int64_t row, std::string& out) {
  const auto scalar = column.GetScalar(row);
  if (!scalar.ok()) return append_unreadable(column.type()->ToString(), out);
  if (const auto* bytes = dynamic_cast<const arrow::BaseBinaryScalar*>(scalar->get()))
    return append_bytes(std::string_view(*bytes->value), column, out);
  if (arrow::is_decimal(column.type_id())) return append_decimal(without_zeros((*scalar)->ToString()), out);
  if (arrow::is_temporal(column.type_id())) return append_text(without_zeros((*scalar)->ToString()), out);
  append_unreadable(column.type()->ToString(), out);
}

/// Writes one value.
void append_json(const arrow::Array& column, int64_t row, std::string& out) {
  if (column.IsNull(row)) return void(out += "null");
  const auto list = [&](const auto& lists) {
    append_list(*lists.values(), lists.value_offset(row), lists.value_length(row), out);
  };
  switch (column.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY:
      return append_bytes(static_cast<const arrow::BinaryArray&>(column).GetView(row), column, out);
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY:
      return append_bytes(static_cast<const arrow::LargeBinaryArray&>(column).GetView(row), column, out);
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
    case arrow::Type::HALF_FLOAT:
      return void(out += half_text(static_cast<const arrow::HalfFloatArray&>(column).Value(row)));
    case arrow::Type::FLOAT:
      return append_number<arrow::FloatArray>(column, row, out);
    case arrow::Type::DOUBLE:
      return append_number<arrow::DoubleArray>(column, row, out);
    case arrow::Type::DICTIONARY: {
      const auto& d = static_cast<const arrow::DictionaryArray&>(column);
      return append_json(*d.dictionary(), d.GetValueIndex(row), out);
    }
    case arrow::Type::EXTENSION:
      return append_json(*static_cast<const arrow::ExtensionArray&>(column).storage(), row, out);
    case arrow::Type::LIST:
      return list(static_cast<const arrow::ListArray&>(column));
    case arrow::Type::LARGE_LIST:
      return list(static_cast<const arrow::LargeListArray&>(column));
    case arrow::Type::FIXED_SIZE_LIST:
      return list(static_cast<const arrow::FixedSizeListArray&>(column));
    case arrow::Type::MAP:
      return append_map(static_cast<const arrow::MapArray&>(column), row, out);
    case arrow::Type::STRUCT: {
      const auto& s = static_cast<const arrow::StructArray&>(column);
      out += '{';
      for (int i = 0; i < s.num_fields(); ++i) {
        if (i > 0) out += ',';
        append_text(s.struct_type()->field(i)->name(), out);
        out += ':';
        append_json(*s.field(i), row, out);  // field() applies the offset of the slice
      }
      return void(out += '}');
    }
    default:
      append_other(column, row, out);
  }
}

/// Arrow's messages may span several lines.
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

namespace {
/// The leaf columns of the fields that rows use: other columns, such as images, cost nothing.
std::vector<int> wanted_columns(const parquet::SchemaDescriptor& schema, const RowParser& parser, std::string& others) {
  std::vector<int> wanted;
  std::set<std::string> left;
  for (int i = 0; i < schema.num_columns(); ++i) {
    const std::string field = schema.GetColumnRoot(i)->name();
    if (parser.wants(field))
      wanted.push_back(i);
    else
      left.insert(field);
  }
  for (const std::string& field : left) {
    if (others.size() > 500) break;
    others += ',';
    append_text(field, others);
    others += ":false";
  }
  return wanted;
}

/// Error (exit 2) if the file has another format.
void check_parquet(arrow::io::RandomAccessFile& file, const std::string& path) {
  const auto head = take(file.ReadAt(0, 64), path);
  const std::string_view bytes(*head);
  if (bytes.starts_with("PAR1")) return;
  if (const auto format = foreign_format(bytes); !format.empty()) fail_input("{}: {}", path, format);
}
}  // namespace

void read_parquet(const std::string& path, RowParser& parser, const RowSink& sink) {
  try {
    uint64_t size = 0;
    const auto file = take(arrow::io::ReadableFile::Open(open_regular(path, size)), path);
    check_parquet(*file, path);
    parquet::arrow::FileReaderBuilder builder;
    check(builder.Open(file), path);
    std::unique_ptr<parquet::arrow::FileReader> reader;
    check(builder.Build(&reader), path);
    reader->set_batch_size(1024);
    std::string others;  // placeholders for the columns that are not read, so that errors can list them
    const std::vector<int> columns = wanted_columns(*reader->parquet_reader()->metadata()->schema(), parser, others);
    std::vector<int> groups(static_cast<size_t>(reader->num_row_groups()));
    for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int>(i);
    const std::shared_ptr<arrow::RecordBatchReader> batches = take(reader->GetRecordBatchReader(groups, columns), path);

    std::string json;
    size_t number = 0;
    while (const std::shared_ptr<arrow::RecordBatch> batch = take(batches->Next(), path)) {
      check(batch->Validate(), path);
      const auto table = take(batch->ToStructArray(), path);
      for (int64_t i = 0; i < batch->num_rows(); ++i) {
        json.clear();
        append_json(*table, i, json);
        if (!others.empty()) {
          json.pop_back();
          json += std::string_view(others).substr(json == "{");
          json += '}';
        }
        sink(parser.parse(json.data(), json.size(), json.capacity(), fmt::format("{}: row {}", path, ++number)));
      }
    }
  } catch (const parquet::ParquetException& e) {
    unreadable(path, e.what());
  }
}

}  // namespace dapo

#endif
