// json.dumps of values.
#include <algorithm>
#include <cmath>

#include "tokenizer/jinja_render.h"
#include "tokenizer/jinja_text.h"

namespace dapo::jinja {

namespace {

void append_number(const Value& v, std::string& out) {
  if (v.is(Kind::real) && !std::isfinite(v.real()))
    out += std::isnan(v.real()) ? "NaN" : v.real() < 0 ? "-Infinity" : "Infinity";
  else
    v.append_repr(out);
}

void append_key(Renderer& r, const Value& key, const JsonStyle& style, std::string& out) {
  if (key.is_string()) return append_json_string(key.text(), style.ascii, out);
  if (!key.is_number() && !key.is_none()) r.error("tojson: {} is not a key that JSON has", key.type_name());
  out += '"';
  if (key.is_none())
    out += "null";
  else if (key.is(Kind::boolean))
    out += key.truth() ? "true" : "false";
  else
    append_number(key, out);
  out += '"';
}

}  // namespace

void append_json(Renderer& r, const Value& value, const JsonStyle& style, std::string& out, int depth) {
  r.step();
  if (out.size() > Renderer::kMaxOutput) r.error("tojson writes more than {} MiB", Renderer::kMaxOutput >> 20);
  const auto line = [&](int levels) {
    if (!style.indent) return;
    r.reserve(static_cast<size_t>(levels) * style.indent->size());
    out += '\n';
    for (int i = 0; i < levels; ++i) out += *style.indent;
  };
  const auto all = [&](const auto& items, char open, char close, const auto& write) {
    out += open;
    bool first = true;
    for (const auto& item : items) {
      if (!std::exchange(first, false)) out += style.item;
      line(depth + 1);
      write(item);
    }
    if (!first) line(depth);
    out += close;
  };
  switch (value.kind()) {
    case Kind::none:
      out += "null";
      break;
    case Kind::boolean:
      out += value.truth() ? "true" : "false";
      break;
    case Kind::integer:
    case Kind::big:
    case Kind::real:
      append_number(value, out);
      break;
    case Kind::string:
      append_json_string(value.text(), style.ascii, out);
      break;
    case Kind::list:
    case Kind::tuple:
      all(value.items(), '[', ']', [&](const Value& item) { append_json(r, item, style, out, depth + 1); });
      break;
    case Kind::dict: {
      auto items = value.dict().items;
      if (style.sort_keys)
        std::stable_sort(items.begin(), items.end(),
                         [&](const auto& a, const auto& b) { return r.order(a.first, b.first, "<") < 0; });
      all(items, '{', '}', [&](const auto& item) {
        append_key(r, item.first, style, out);
        out += style.key;
        append_json(r, item.second, style, out, depth + 1);
      });
      break;
    }
    case Kind::undefined:
      r.error("tojson: {}", value.text().empty() ? "the value is undefined" : value.text());
    default:
      r.error("tojson: an object of type {} is not JSON", value.type_name());
  }
}

}  // namespace dapo::jinja
