// Python's operators and built-in functions on values.
#include <algorithm>
#include <cmath>

#include "tokenizer/jinja_render.h"
#include "tokenizer/jinja_text.h"

namespace dapo::jinja {

std::vector<Value> Renderer::iterate(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return {};
    case Kind::string: {
      std::vector<Value> out;
      reserve(value.text().size() * sizeof(Value));
      for (const std::string_view c : characters_of(value.text())) out.emplace_back(c);
      return out;
    }
    case Kind::dict: {
      std::vector<Value> out;
      reserve(value.dict().items.size() * sizeof(Value));
      for (const auto& [key, unused] : value.dict().items) out.push_back(key);
      return out;
    }
    case Kind::iterator: {
      Sequence& s = value.sequence();
      std::vector<Value> out(s.items.begin() + static_cast<std::ptrdiff_t>(s.next), s.items.end());
      s.next = s.items.size();
      return out;
    }
    default:
      if (!value.is_sequence()) error("'{}' object is not iterable", value.type_name());
      reserve(value.items().size() * sizeof(Value));
      return value.items();
  }
}

size_t Renderer::length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) {
    step(value.text().size() / 64);
    return length_of(value.text());
  }
  if (value.is_dict()) return value.dict().items.size();
  if (!value.is_sequence() || value.is(Kind::iterator)) error("object of type '{}' has no len()", value.type_name());
  return value.items().size();
}

bool Renderer::contains(const Value& container, const Value& value) {
  if (container.is_undefined()) return false;
  if (container.is_string()) {
    if (!value.is_string()) error("'in <string>' requires string as left operand, not {}", value.type_name());
    step(container.text().size() / 16);
    return container.text().find(value.text()) != std::string::npos;
  }
  if (container.is_dict()) {
    if (!value.hash_key()) error("{} cannot be a key of a dict", value.type_name());
    return container.dict().find(value) != nullptr;
  }
  if (!container.is_sequence()) error("argument of type '{}' is not iterable", container.type_name());
  Sequence& s = container.sequence();
  const bool once = container.is(Kind::iterator);
  for (size_t i = once ? s.next : 0; i < s.items.size(); ++i) {
    step(1 + std::min(s.items[i].weight(), value.weight()) / 16);
    if (once) s.next = i + 1;
    if (equal(s.items[i], value)) return true;
  }
  return false;
}

int Renderer::order(const Value& a, const Value& b, const char* op) {
  if (a.is_undefined()) error("{}", a.text());
  if (b.is_undefined()) error("{}", b.text());
  if (a.is(Kind::big) || b.is(Kind::big)) error("an integer beyond 64 bits cannot be compared");
  const auto o = compare(a, b);
  if (!o) error("'{}' not supported between instances of '{}' and '{}'", op, a.type_name(), b.type_name());
  return *o;
}

int64_t Renderer::integer(const Value& value, const char* what) {
  if (value.is_undefined()) error("{}", value.text());
  if (!value.is_integral()) error("{} must be an integer, not {}", what, value.type_name());
  return value.integer();
}

Value Renderer::add(const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    if (!a.is_safe() && !b.is_safe()) {
      reserve(a.text().size() + b.text().size());
      return Value(a.text() + b.text());
    }
    return text((a.is_safe() ? a.text() : escape_html(a.text())) + (b.is_safe() ? b.text() : escape_html(b.text())),
                true);
  }
  if (a.kind() == b.kind() && (a.is(Kind::list) || a.is(Kind::tuple))) {
    reserve((a.items().size() + b.items().size()) * sizeof(Value));
    std::vector<Value> items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return Value::sequence(a.kind(), std::move(items));
  }
  if (a.is_string() && !b.is_undefined()) error("can only concatenate str (not \"{}\") to str", b.type_name());
  return arithmetic("+", a, b);
}

namespace {

double real_result(Renderer& r, std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") return std::pow(a, b);
  if (b == 0) r.error("division by zero");
  if (op == "/") return a / b;
  if (op == "//") return std::floor(a / b);
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value integer_result(Renderer& r, std::string_view op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool over = false;
  if (op == "/") return real_result(r, op, static_cast<double>(a), static_cast<double>(b));
  if (op == "+") {
    over = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    over = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    over = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    if (b < 0) return real_result(r, op, static_cast<double>(a), static_cast<double>(b));
    out = 1;
    int64_t base = a;
    for (int64_t n = b; n > 0 && !over; n >>= 1) {
      if (n & 1) over |= __builtin_mul_overflow(out, base, &out);
      if (n > 1) over |= __builtin_mul_overflow(base, base, &base);
    }
  } else {
    if (b == 0) r.error("division by zero");
    if (b == -1) {
      if (op == "//") over = __builtin_sub_overflow(int64_t{0}, a, &out);
    } else {
      const int64_t rest = a % b, down = rest != 0 && (rest < 0) != (b < 0);
      out = op == "//" ? a / b - down : rest + (down ? b : 0);
    }
  }
  if (over) r.error("{} {} {} is beyond 64 bits", a, op, b);
  return out;
}

Value repeated(Renderer& r, const Value& what, int64_t times) {
  const size_t n = times < 0 ? 0 : static_cast<size_t>(times);
  const size_t each = what.is_string() ? what.text().size() : what.items().size() * sizeof(Value);
  if (each > 0 && n > Renderer::kMaxBytes / each) r.error("a value repeated {} times is too large", times);
  r.reserve(n * each);
  if (what.is_string()) {
    std::string out;
    out.reserve(n * each);
    for (size_t i = 0; i < n && each > 0; ++i) out += what.text();
    return Value(std::move(out), what.is_safe());
  }
  std::vector<Value> items;
  for (size_t i = 0; i < n && each > 0; ++i) items.insert(items.end(), what.items().begin(), what.items().end());
  return Value::sequence(what.kind(), std::move(items));
}

}  // namespace

Value Renderer::arithmetic(std::string_view op, const Value& a, const Value& b) {
  if (a.is_undefined()) error("{}", a.text());
  if (op == "%" && a.is_string()) return text(percent_format(*this, a.text(), b));
  if (b.is_undefined()) error("{}", b.text());
  if (a.is(Kind::big) || b.is(Kind::big)) error("an integer beyond 64 bits cannot be used in arithmetic");
  const auto repeats = [](const Value& v) { return v.is_string() || v.is(Kind::list) || v.is(Kind::tuple); };
  if (op == "*" && repeats(a) && b.is_integral()) return repeated(*this, a, b.integer());
  if (op == "*" && repeats(b) && a.is_integral()) return repeated(*this, b, a.integer());
  if (!a.is_number() || !b.is_number())
    error("unsupported operand type(s) for {}: '{}' and '{}'", op, a.type_name(), b.type_name());
  if (a.is_integral() && b.is_integral()) return integer_result(*this, op, a.integer(), b.integer());
  return real_result(*this, op, a.real(), b.real());
}

Bound::Bound(Renderer& r, const char* function, Args& args, std::initializer_list<std::string_view> names)
    : r_(r), function_(function), names_(names), values_(names.size(), nullptr) {
  if (args.positional.size() > names_.size())
    r.error("{} takes at most {} arguments, but got {}", function, names_.size(), args.positional.size());
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto at = static_cast<size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin());
    if (at == names_.size()) r.error("{} takes no argument '{}'", function, name);
    if (values_[at] != nullptr) r.error("{} got the argument '{}' twice", function, name);
    values_[at] = &value;
  }
}

const Value& Bound::need(size_t i) const {
  if (values_[i] == nullptr) r_.error("{} needs the argument '{}'", function_, names_[i]);
  return *values_[i];
}

std::string Bound::text(size_t i, const std::string& otherwise) const {
  return values_[i] && !values_[i]->is_none() ? r_.str(*values_[i]) : otherwise;
}

int64_t Bound::integer(size_t i, int64_t otherwise) const {
  return values_[i] ? r_.integer(*values_[i], function_) : otherwise;
}

Value without_case(const Value& value) {
  return value.is_string() ? Value(lower(value.text())) : value;
}

}  // namespace dapo::jinja
