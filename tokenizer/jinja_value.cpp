#include "tokenizer/jinja_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "tokenizer/jinja_text.h"

namespace dapo::jinja {

namespace {

/// The depth of a container of these; Error if too deep, because printing and freeing values are recursive.
int depth_of(int deepest) {
  if (deepest >= kMaxDepth) fail_input("lists and dicts nested deeper than {} levels", kMaxDepth);
  return deepest + 1;
}

/// The weight of a container; Error if too large, because the same list may be contained in another many times.
size_t weight_of(size_t sum) {
  if (sum > kMaxWeight) fail_input("a list or dict whose text would have more than {} MiB", kMaxWeight >> 20);
  return sum + 16;
}

std::string real_text(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", v);  // shortest digits, exponents as Python's repr
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

}  // namespace

Value::Value(std::string text, bool safe)
    : kind_(Kind::string), text_(std::make_shared<const Text>(Text{std::move(text), safe})) {}

Value::Value(Dict dict) : kind_(Kind::dict) {
  int deepest = 0;
  size_t sum = 0;
  for (const auto& [key, value] : dict.items) {
    deepest = std::max({deepest, key.depth(), value.depth()});
    sum += key.weight() + value.weight();
  }
  dict.depth = depth_of(deepest);
  dict.weight = weight_of(sum);
  dict_ = std::make_shared<const Dict>(std::move(dict));
}

Value Value::none() {
  Value v;
  v.kind_ = Kind::none;
  return v;
}

Value Value::undefined(std::string what) {
  return {std::make_shared<const Text>(Text{std::move(what)}), Kind::undefined};
}

Value Value::big(std::string digits) {
  return {std::make_shared<const Text>(Text{std::move(digits)}), Kind::big};
}

Value Value::sequence(Kind kind, std::vector<Value> items, std::string label) {
  Value v;
  v.kind_ = kind;
  int deepest = 0;
  size_t sum = 0;
  for (const Value& item : items) {
    deepest = std::max(deepest, item.depth());
    sum += item.weight();
  }
  v.sequence_ =
      std::make_shared<Sequence>(Sequence{std::move(items), std::move(label), depth_of(deepest), weight_of(sum)});
  return v;
}

bool Value::is_safe() const {
  return is_string() && text_->safe;
}

double Value::real() const {
  if (is(Kind::real)) return real_;
  if (is(Kind::big)) return std::strtod(text_->text.c_str(), nullptr);
  return static_cast<double>(integer_);
}

const std::string& Value::text() const {
  static const std::string none;
  return text_ ? text_->text : none;
}

const std::vector<Value>& Value::items() const {
  return sequence_->items;
}

int Value::depth() const {
  return sequence_ ? sequence_->depth : dict_ ? dict_->depth : 0;
}

size_t Value::weight() const {
  return sequence_ ? sequence_->weight : dict_ ? dict_->weight : 16 + text().size();
}

bool Value::truth() const {
  switch (kind_) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return integer_ != 0;
    case Kind::real:
      return real_ != 0;
    case Kind::string:
      return !text_->text.empty();
    case Kind::list:
    case Kind::tuple:
    case Kind::range:
    case Kind::view:
      return !sequence_->items.empty();
    case Kind::dict:
      return !dict_->items.empty();
    default:
      return true;  // generators and objects are always true
  }
}

std::string Value::str() const {
  if (is_string()) return text_->text;
  if (is_undefined()) return "";
  return repr();
}

std::string Value::repr() const {
  std::string out;
  append_repr(out);
  return out;
}

void Value::append_repr(std::string& out) const {
  switch (kind_) {
    case Kind::undefined:
      out += "Undefined";
      break;
    case Kind::none:
      out += "None";
      break;
    case Kind::boolean:
      out += integer_ ? "True" : "False";
      break;
    case Kind::integer:
      out += fmt::format("{}", integer_);
      break;
    case Kind::big:
      out += text_->text;
      break;
    case Kind::real:
      out += real_text(real_);
      break;
    case Kind::string:
      append_quoted(text_->text, out);
      break;
    case Kind::range:
      out += sequence_->label;
      break;
    case Kind::iterator:
      out += "<generator object>";
      break;
    case Kind::dict: {
      const char* separator = "{";
      for (const auto& [key, value] : dict_->items) {
        out += std::exchange(separator, ", ");
        key.append_repr(out);
        out += ": ";
        value.append_repr(out);
      }
      out += dict_->items.empty() ? "{}" : "}";
      break;
    }
    case Kind::object:
      out += fmt::format("<{}>", object_->type_name());
      break;
    default: {  // list, tuple, view
      const bool tuple = is(Kind::tuple);
      out += is(Kind::view) ? sequence_->label + "([" : tuple ? "(" : "[";
      const char* separator = "";
      for (const Value& item : sequence_->items) {
        out += std::exchange(separator, ", ");
        item.append_repr(out);
      }
      out += is(Kind::view) ? "])" : !tuple ? "]" : sequence_->items.size() == 1 ? ",)" : ")";
    }
  }
}

const char* Value::type_name() const {
  static constexpr const char* kNames[] = {"Undefined", "NoneType", "bool",  "int",  "int",       "float", "str",
                                           "list",      "tuple",    "range", "view", "generator", "dict"};
  return is_object() ? object_->type_name() : kNames[static_cast<size_t>(kind_)];
}

std::optional<std::string> Value::hash_key() const {
  switch (kind_) {
    case Kind::undefined:
      return "u";
    case Kind::none:
      return "n";
    case Kind::boolean:
    case Kind::integer:
      return fmt::format("i{}", integer_);
    case Kind::big:
      return "i" + text_->text;
    case Kind::real:
      if (real_ == std::floor(real_) && std::fabs(real_) < 0x1p63)
        return fmt::format("i{}", static_cast<int64_t>(real_));
      return fmt::format("r{}", real_);
    case Kind::string:
      return "s" + text_->text;
    case Kind::tuple: {
      std::string all = "t";
      for (const Value& item : sequence_->items) {
        const auto key = item.hash_key();
        if (!key) return std::nullopt;
        all += fmt::format("{}:{}", key->size(), *key);
      }
      return all;
    }
    case Kind::object:
      return fmt::format("o{}", fmt::ptr(object_.get()));
    default:
      return std::nullopt;
  }
}

const Value* Dict::find_name(std::string_view name) const {
  const auto at = index.find("s" + std::string(name));
  return at == index.end() ? nullptr : &items[at->second].second;
}

const Value* Dict::find(const Value& key) const {
  const auto hash = key.hash_key();
  if (!hash) return nullptr;
  const auto at = index.find(*hash);
  return at == index.end() ? nullptr : &items[at->second].second;
}

void Dict::set(const Value& key, Value value) {
  // NOLINTNEXTLINE(bugprone-unchecked-optional-access): value() throws
  const auto [at, fresh] = index.try_emplace(key.hash_key().value(), items.size());
  if (fresh)
    items.emplace_back(key, std::move(value));
  else
    items[at->second].second = std::move(value);
}

Value Object::call(Renderer&, Args&) {
  fail_input("'{}' object is not callable", type_name());
}

std::optional<Value> Namespace::attribute(Renderer&, std::string_view name) {
  const Value* value = members.find_name(name);
  return value ? std::optional(*value) : std::nullopt;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::big) || b.is(Kind::big)) return a.hash_key() == b.hash_key();
    return a.is_integral() && b.is_integral() ? a.integer() == b.integer() : a.real() == b.real();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      return a.text() == b.text();
    case Kind::list:
    case Kind::tuple:
    case Kind::range:
      return std::equal(a.items().begin(), a.items().end(), b.items().begin(), b.items().end(), equal);
    case Kind::dict: {
      if (a.dict().items.size() != b.dict().items.size()) return false;
      return std::all_of(a.dict().items.begin(), a.dict().items.end(), [&](const auto& item) {
        const Value* other = b.dict().find(item.first);
        return other != nullptr && equal(item.second, *other);
      });
    }
    case Kind::object:
      return a.object() == b.object();
    default:
      return &a.sequence() == &b.sequence();
  }
}

std::optional<int> compare(const Value& a, const Value& b) {
  const auto order = [](const auto& x, const auto& y) { return x < y ? -1 : y < x ? 1 : 0; };
  if (a.is_number() && b.is_number())
    return a.is_integral() && b.is_integral() ? order(a.integer(), b.integer()) : order(a.real(), b.real());
  if (a.is_string() && b.is_string()) return order(a.text(), b.text());  // UTF-8 sorts in code point order
  if (a.kind() != b.kind() || !(a.is(Kind::list) || a.is(Kind::tuple))) return std::nullopt;
  const size_t common = std::min(a.items().size(), b.items().size());
  for (size_t i = 0; i < common; ++i)
    if (!equal(a.items()[i], b.items()[i])) return compare(a.items()[i], b.items()[i]);
  return order(a.items().size(), b.items().size());
}

}  // namespace dapo::jinja
