// Runs a parsed chat template: statements (jinja_render.cpp), expressions (jinja_evaluate.cpp), operators
// (jinja_operators.cpp), functions and loops (jinja_objects.cpp), filters (jinja_filters*.cpp), tests
// (jinja_tests.cpp), methods of str, list and dict (jinja_methods.cpp).
#pragma once

#include <fmt/format.h>

#include <initializer_list>

#include "core/check.h"
#include "tokenizer/jinja_syntax.h"

namespace dapo::jinja {

/// The variables of a block. Assignments go to the innermost one; names are looked up from the inside out.
struct Scope {
  std::shared_ptr<Scope> outer;
  std::vector<std::pair<std::string, Value>> variables;

  Value* find(std::string_view name);
  void set(const std::string& name, Value value);
};
using ScopePtr = std::shared_ptr<Scope>;

/// A filter, a test, a method or a function: `self` is the value before "|", "is" or ".".
using Operation = Value (*)(Renderer& r, const Value& self, Args& args);
/// null if there is no such operation.
Operation find_filter(std::string_view name);
Operation find_test(std::string_view name);
Operation find_method(const Value& self, std::string_view name);
/// True for mutating methods of list and dict.
bool is_mutation(const Value& self, std::string_view name);
/// range, dict, namespace, raise_exception, strftime_now, cycler, joiner
const Dict& global_functions();

class Renderer {
 public:
  /// A template's resource limits: far more than any conversation needs, and under two seconds.
  static constexpr size_t kMaxSteps = 10'000'000;
  static constexpr size_t kMaxBytes = size_t{256} << 20;  ///< total of all values created
  static constexpr size_t kMaxOutput = size_t{32} << 20;
  static constexpr int kMaxCalls = 1000;  ///< evaluations within evaluations

  explicit Renderer(const std::string& name) : name_(name) {}
  ~Renderer();
  Renderer(const Renderer&) = delete;
  Renderer& operator=(const Renderer&) = delete;
  std::string run(const std::vector<StmtPtr>& body, const Dict& variables);

  /// Error (exit 2) with the template's name and the current line.
  template <class... A>
  [[noreturn]] void error(fmt::format_string<A...> text, A&&... args) const {
    fail_input("{}:{}: {}", name_, line_, fmt::format(text, std::forward<A>(args)...));
  }
  void step(size_t n = 1);
  /// Call before values of so many bytes are created.
  void reserve(size_t bytes);

  /// A value of text, counted.
  Value text(std::string text, bool safe = false);
  Value list(std::vector<Value> items, Kind kind = Kind::list);
  /// str(value), counted as work.
  std::string str(const Value& value);

  Value evaluate(const Expr& e);
  Value attribute(const Value& of, std::string_view name);
  Value item(const Value& of, const Value& key);
  /// item() along "a.b.0", for the `attribute` argument of filters.
  Value path(const Value& of, const Value& path, const Value* otherwise = nullptr);
  Value call(const Value& what, Args& args);
  Value filter(std::string_view name, const Value& value, Args& args);
  bool test(std::string_view name, const Value& value, Args& args);
  /// The items that Python would iterate over; an iterator is consumed.
  std::vector<Value> iterate(const Value& value);
  size_t length(const Value& value);
  bool contains(const Value& container, const Value& value);
  int order(const Value& a, const Value& b, const char* op);  ///< compare(), or an error
  Value add(const Value& a, const Value& b);
  Value arithmetic(std::string_view op, const Value& a, const Value& b);
  int64_t integer(const Value& value, const char* what);

  /// Captures what `run` writes, instead of appending it to the template's output.
  template <class F>
  std::string capture(F run) {
    std::string inner;
    std::swap(out_, inner);
    run();
    std::swap(out_, inner);
    return inner;
  }
  Value call_macro(const Stmt& macro, const ScopePtr& scope, Args& args);
  std::string run_loop(const Stmt& loop, const ScopePtr& scope, const Value& items, int depth);
  void remember(std::shared_ptr<Namespace> space) { spaces_.push_back(std::move(space)); }

 private:
  enum class Flow : uint8_t { on, stop, next };
  class Depth;   // one evaluation within another
  class Inside;  // a scope entered

  Flow run_all(const std::vector<StmtPtr>& body);
  Flow run_one(const Stmt& s);
  void run_set(const Stmt& s);
  void capture_scope();
  void run_call_block(const Stmt& s);
  void run_with(const Stmt& s);
  void loop(const Stmt& s, const Value& items, int depth);
  void write(std::string_view text);
  void assign(const Target& target, const Value& value, const ScopePtr& scope);
  Value run_filters(const Expr& e, const Value& value);
  Args arguments(const CallArguments& a);

  Value evaluate_compare(const Expr& e);
  Value evaluate_slice(const Expr& e);
  Value evaluate_unary(const Expr& e);
  Value evaluate_concat(const Expr& e);
  Value evaluate_dict(const Expr& e);

  const std::string& name_;
  int line_ = 1, depth_ = 0;
  size_t steps_ = 0, bytes_ = 0;
  std::string out_;
  ScopePtr scope_;
  std::vector<ScopePtr> captured_;  // scopes captured by macros: cleared at the end to break reference cycles
  std::vector<std::shared_ptr<Namespace>> spaces_;
};

/// Arguments matched to the names of a signature; Error for unknown ones.
class Bound {
 public:
  Bound(Renderer& r, const char* function, Args& args, std::initializer_list<std::string_view> names);
  const Value* operator[](size_t i) const { return values_[i]; }
  bool flag(size_t i, bool otherwise = false) const { return values_[i] ? values_[i]->truth() : otherwise; }
  std::string text(size_t i, const std::string& otherwise) const;
  int64_t integer(size_t i, int64_t otherwise) const;
  /// Error if it is missing.
  const Value& need(size_t i) const;

 private:
  Renderer& r_;
  const char* function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

/// Python's json.dumps.
struct JsonStyle {
  bool ascii = false, sort_keys = false;
  std::string item = ", ", key = ": ";
  std::optional<std::string> indent{};
};
void append_json(Renderer& r, const Value& value, const JsonStyle& style, std::string& out, int depth = 0);
/// text % value
std::string percent_format(Renderer& r, std::string_view text, const Value& value);
/// text.format(...)
std::string brace_format(Renderer& r, std::string_view text, const Args& args);
/// lower case for comparisons that ignore it
Value without_case(const Value& value);

}  // namespace dapo::jinja
