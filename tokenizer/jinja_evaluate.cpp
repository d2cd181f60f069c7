// Expressions of chat templates: their values.
#include <algorithm>

#include "tokenizer/jinja_render.h"
#include "tokenizer/jinja_text.h"

namespace dapo::jinja {

using K = Expr::Kind;

class Renderer::Depth {
 public:
  explicit Depth(Renderer& r) : r_(r) {
    if (++r.depth_ > kMaxCalls) r.error("calls nested deeper than {} levels: does a macro call itself?", kMaxCalls);
  }
  ~Depth() { --r_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Renderer& r_;
};

Value Renderer::evaluate(const Expr& e) {
  const Depth depth(*this);
  line_ = e.line;
  step();
  switch (e.kind) {
    case K::constant:
      return e.value;
    case K::name:
      if (const Value* value = scope_->find(e.name)) return *value;
      return Value::undefined(fmt::format("'{}' is undefined", e.name));
    case K::list:
    case K::tuple: {
      std::vector<Value> items;
      for (const ExprPtr& part : e.parts) items.push_back(evaluate(*part));
      return list(std::move(items), e.kind == K::list ? Kind::list : Kind::tuple);
    }
    case K::dict:
      return evaluate_dict(e);
    case K::attribute: {
      const Value of = evaluate(*e.parts[0]);
      line_ = e.line;
      return attribute(of, e.name);
    }
    case K::item: {
      const Value of = evaluate(*e.parts[0]), key = evaluate(*e.parts[1]);
      line_ = e.line;
      return item(of, key);
    }
    case K::slice:
      return evaluate_slice(e);
    case K::call: {
      const Value callee = evaluate(*e.parts[0]);
      Args args = arguments(e.arguments);
      line_ = e.line;
      return call(callee, args);
    }
    case K::filter: {
      const Value value = evaluate(*e.parts[0]);
      Args args = arguments(e.arguments);
      line_ = e.line;
      return filter(e.name, value, args);
    }
    case K::test: {
      const Value value = evaluate(*e.parts[0]);
      Args args = arguments(e.arguments);
      line_ = e.line;
      return test(e.name, value, args);
    }
    case K::unary:
      return evaluate_unary(e);
    case K::binary: {
      const Value a = evaluate(*e.parts[0]), b = evaluate(*e.parts[1]);
      line_ = e.line;
      return e.name == "+" ? add(a, b) : arithmetic(e.name, a, b);
    }
    case K::logic: {
      Value a = evaluate(*e.parts[0]);
      return a.truth() == (e.name == "or") ? a : evaluate(*e.parts[1]);
    }
    case K::compare:
      return evaluate_compare(e);
    case K::concat:
      return evaluate_concat(e);
    case K::condition:
      if (evaluate(*e.parts[1]).truth()) return evaluate(*e.parts[0]);
      if (e.parts[2]) return evaluate(*e.parts[2]);
      return Value::undefined("the inline if-expression evaluated to false and no else section was defined");
  }
  return {};
}

Args Renderer::arguments(const CallArguments& a) {
  Args out;
  for (const ExprPtr& e : a.positional) out.positional.push_back(evaluate(*e));
  for (const auto& [name, e] : a.named) out.named.emplace_back(name, evaluate(*e));
  if (a.star)
    for (Value& value : iterate(evaluate(*a.star))) out.positional.push_back(std::move(value));
  if (a.star_star) {
    const Value more = evaluate(*a.star_star);
    if (!more.is_dict()) error("an argument after ** must be a dict, not {}", more.type_name());
    for (const auto& [key, value] : more.dict().items) {
      if (!key.is_string()) error("the names of arguments after ** must be strings");
      out.named.emplace_back(key.text(), value);
    }
  }
  return out;
}

Value Renderer::evaluate_dict(const Expr& e) {
  Dict out;
  for (size_t i = 0; i < e.parts.size(); i += 2) {
    const Value key = evaluate(*e.parts[i]);
    reserve(key.weight());
    if (!key.hash_key()) error("{} cannot be a key of a dict", key.type_name());
    Value value = evaluate(*e.parts[i + 1]);
    if (value.depth() + 1 >= kMaxDepth) error("dicts nested deeper than {} levels", kMaxDepth);
    out.set(key, std::move(value));
  }
  reserve(out.items.size() * 4 * sizeof(Value));
  return out;
}

Value Renderer::evaluate_slice(const Expr& e) {
  const Value of = evaluate(*e.parts[0]);
  std::optional<int64_t> bounds[3];
  for (size_t i = 0; i < 3; ++i)
    if (e.parts[i + 1])
      if (const Value bound = evaluate(*e.parts[i + 1]); !bound.is_none())
        bounds[i] = integer(bound, "a slice's bound");
  line_ = e.line;
  if (of.is_undefined()) error("{}", of.text());
  if (!of.is_string() && !of.is_indexed()) return Value::undefined(fmt::format("{} cannot be sliced", of.type_name()));
  const int64_t step = bounds[2].value_or(1);
  if (step == 0) error("a slice's step is 0");
  const auto n = static_cast<int64_t>(length(of));
  // As in slice.indices(): negative ones count from the end, then all are clamped.
  const auto place = [&](std::optional<int64_t> bound, int64_t otherwise) {
    if (!bound) return otherwise;
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    return std::clamp(*bound < 0 ? std::max(*bound, -n - 1) + n : *bound, low, high);
  };
  const int64_t begin = place(bounds[0], step > 0 ? 0 : n - 1), end = place(bounds[1], step > 0 ? n : -1);
  if (of.is_string() && step == 1) {
    const std::string_view all = of.text();
    const size_t from = offset_of(all, static_cast<size_t>(begin));
    const size_t count = static_cast<size_t>(std::max<int64_t>(0, end - begin));
    return text(std::string(all.substr(from, offset_of(all.substr(from), count))), of.is_safe());
  }
  std::vector<size_t> chosen;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    chosen.push_back(static_cast<size_t>(i));
    if (step > 0 ? step >= n - i : step <= -i - 1) break;
    i += step;
  }
  this->step(chosen.size());
  if (of.is_string()) {
    const auto characters = characters_of(of.text());
    std::string out;
    for (const size_t i : chosen) out += characters[i];
    return text(std::move(out), of.is_safe());
  }
  std::vector<Value> items;
  for (const size_t i : chosen) items.push_back(of.items()[i]);
  return list(std::move(items), of.is(Kind::tuple) ? Kind::tuple : Kind::list);
}

Value Renderer::evaluate_unary(const Expr& e) {
  const Value a = evaluate(*e.parts[0]);
  line_ = e.line;
  if (e.name == "not") return !a.truth();
  if (a.is_undefined()) error("{}", a.text());
  if (!a.is_number() || a.is(Kind::big)) error("bad operand type for unary {}: '{}'", e.name, a.type_name());
  if (a.is(Kind::real)) return e.name == "-" ? -a.real() : a.real();
  return e.name == "-" ? arithmetic("-", Value(0), a) : Value(a.integer());
}

Value Renderer::evaluate_concat(const Expr& e) {
  std::string out;
  for (const ExprPtr& part : e.parts) {
    const Value value = evaluate(*part);
    out += value.is_string() ? value.text() : str(value);
  }
  return text(std::move(out));
}

Value Renderer::evaluate_compare(const Expr& e) {
  Value left = evaluate(*e.parts[0]);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    const Value right = evaluate(*e.parts[i + 1]);
    line_ = e.line;
    const std::string& op = e.ops[i];
    step(std::min(left.weight(), right.weight()) / 16);
    bool holds = false;
    if (op == "==" || op == "!=")
      holds = equal(left, right) == (op == "==");
    else if (op == "in" || op == "not in")
      holds = contains(right, left) == (op == "in");
    else if (const int o = order(left, right, op.c_str()); op[0] == '<')
      holds = o < 0 || (op == "<=" && o == 0);
    else
      holds = o > 0 || (op == ">=" && o == 0);
    if (!holds) return false;
    left = right;
  }
  return true;
}

Value Renderer::call(const Value& what, Args& args) {
  const Depth depth(*this);
  if (what.is_undefined()) error("{}", what.text());
  if (!what.is_object() || !what.object()->callable()) error("'{}' object is not callable", what.type_name());
  return what.object()->call(*this, args);
}

Value Renderer::filter(std::string_view name, const Value& value, Args& args) {
  const Operation operation = find_filter(name);
  if (operation == nullptr) {
    if (name == "random") error("the filter 'random' is not supported: a row must give the same prompt each time");
    for (const char* of_pages : {"pprint", "striptags", "urlize", "wordwrap"})
      if (name == of_pages)
        error("the filter '{}' of Jinja is not supported: remove it from the template in the model's folder", name);
    error("unknown filter '{}'", name);
  }
  return operation(*this, value, args);
}

bool Renderer::test(std::string_view name, const Value& value, Args& args) {
  const Operation operation = find_test(name);
  if (operation == nullptr) error("unknown test '{}'", name);
  return operation(*this, value, args).truth();
}

Value Renderer::attribute(const Value& of, std::string_view name) {
  if (of.is_undefined()) error("{}", of.text());
  if (of.is_object()) {
    if (auto found = of.object()->attribute(*this, name)) return std::move(*found);
  } else if (const Operation method = find_method(of, name)) {
    return std::shared_ptr<Object>(std::make_shared<Function>(method, of));
  } else if (is_mutation(of, name)) {
    return Value::undefined(
        fmt::format("'{}' would change a {}, which a template may not: build a new one", name, of.type_name()));
  } else if (of.is_dict()) {
    if (const Value* value = of.dict().find_name(name)) return *value;
  }
  return Value::undefined(fmt::format("'{}' object has no attribute '{}'", of.type_name(), name));
}

Value Renderer::item(const Value& of, const Value& key) {
  if (of.is_undefined()) error("{}", of.text());
  if (of.is_dict()) {
    if (const Value* value = of.dict().find(key)) return *value;
  } else if ((of.is_string() || of.is_indexed()) && key.is_integral()) {
    const auto n = static_cast<int64_t>(length(of));
    const int64_t at = key.integer() < 0 ? key.integer() + n : key.integer();
    if (at >= 0 && at < n) {
      if (!of.is_string()) return of.items()[static_cast<size_t>(at)];
      const std::string_view rest = std::string_view(of.text()).substr(offset_of(of.text(), static_cast<size_t>(at)));
      return text(std::string(rest.substr(0, offset_of(rest, 1))));
    }
  }
  if (key.is_string()) return attribute(of, key.text());
  return Value::undefined(fmt::format("'{}' object has no element {}", of.type_name(), key.repr().substr(0, 80)));
}

Value Renderer::path(const Value& of, const Value& path, const Value* otherwise) {
  Value at = of;
  const auto go = [&](const Value& key) {
    at = item(at, key);
    if (otherwise && at.is_undefined()) at = *otherwise;
  };
  if (!path.is_string()) {
    go(path);
    return at;
  }
  static const std::string kDot = ".";
  for (const std::string_view part : split(path.text(), &kDot, -1, false)) {
    const bool number = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    go(number ? Value(std::stoi(std::string(part))) : Value(part));
  }
  return at;
}

}  // namespace dapo::jinja
