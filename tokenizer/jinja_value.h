// Values of chat templates: Python's, as far as Jinja exposes them. Containers are shared and immutable
// (transformers' sandbox forbids mutation as well), except namespaces and iterators.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace dapo::jinja {

class Renderer;
class Value;
struct Args;

struct Text;
struct Sequence;
struct Dict;
class Object;

class Value {
 public:
  enum class Kind : uint8_t {
    undefined,  ///< text: for the error message
    none,
    boolean,
    integer,
    big,  ///< an integer beyond 64 bits, from JSON: text holds its digits; printed, compared, no arithmetic
    real,
    string,
    list,
    tuple,
    range,
    view,      ///< dict.keys(), .values(), .items()
    iterator,  ///< of filters such as map and select: consumed once
    dict,
    object,  ///< functions, macros, namespaces, loop
  };

  Value() = default;  ///< undefined, without a name
  Value(bool v) : kind_(Kind::boolean), integer_(v) {}
  Value(int64_t v) : kind_(Kind::integer), integer_(v) {}
  Value(int v) : Value(int64_t{v}) {}
  Value(size_t v) : Value(static_cast<int64_t>(v)) {}
  Value(double v) : kind_(Kind::real), real_(v) {}
  Value(std::string text, bool safe = false);
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(std::shared_ptr<const Text> text, Kind kind) : kind_(kind), text_(std::move(text)) {}
  Value(Dict dict);
  Value(std::shared_ptr<Object> object) : kind_(Kind::object), object_(std::move(object)) {}
  static Value none();
  static Value undefined(std::string what);
  static Value big(std::string digits);
  /// `label`: what repr shows before the items ("dict_keys"), or instead of them (a range's).
  static Value sequence(Kind kind, std::vector<Value> items, std::string label = "");

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::undefined; }
  bool is_none() const { return kind_ == Kind::none; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_integral() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  bool is_number() const { return is_integral() || kind_ == Kind::real || kind_ == Kind::big; }
  bool is_dict() const { return kind_ == Kind::dict; }
  bool is_object() const { return kind_ == Kind::object; }
  /// list, tuple, range: ordered, with a length and indexed items.
  bool is_indexed() const { return kind_ == Kind::list || kind_ == Kind::tuple || kind_ == Kind::range; }
  bool is_sequence() const { return kind_ >= Kind::list && kind_ <= Kind::iterator; }
  bool is_safe() const;

  int64_t integer() const { return integer_; }
  double real() const;
  const std::string& text() const;
  const std::vector<Value>& items() const;
  Sequence& sequence() const { return *sequence_; }
  const Dict& dict() const { return *dict_; }
  const std::shared_ptr<Object>& object() const { return object_; }
  /// Nesting depth of containers in it: 0 if it contains nothing.
  int depth() const;
  /// Its size in bytes if nothing in it were shared: the cost of printing or comparing it.
  size_t weight() const;

  bool truth() const;
  /// As by str() and repr(). Depth is limited when containers are created.
  std::string str() const;
  std::string repr() const;
  void append_repr(std::string& out) const;
  const char* type_name() const;  ///< Python's
  /// A key that is the same for equal values (1, 1.0 and True); nothing if Python cannot hash the value.
  std::optional<std::string> hash_key() const;

 private:
  Kind kind_ = Kind::undefined;
  union {
    int64_t integer_ = 0;
    double real_;
  };
  std::shared_ptr<const Text> text_;
  std::shared_ptr<Sequence> sequence_;
  std::shared_ptr<const Dict> dict_;
  std::shared_ptr<Object> object_;
};

using Kind = Value::Kind;

inline constexpr int kMaxDepth = 100;                    ///< of containers within containers
inline constexpr size_t kMaxWeight = size_t{256} << 20;  ///< of one value

struct Text {
  std::string text;
  bool safe = false;  ///< markup: text appended to it is escaped
};

struct Sequence {
  std::vector<Value> items;
  std::string label;
  int depth = 1;
  size_t weight = 0;
  size_t next = 0;  ///< of an iterator
};

/// In the order of insertion.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  std::unordered_map<std::string, size_t> index;
  int depth = 1;
  size_t weight = 0;

  const Value* find_name(std::string_view name) const;
  const Value* find(const Value& key) const;  ///< also null if the key has no hash
  void set(const Value& key, Value value);    ///< the key must have a hash
};

/// Positional arguments and named ones.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// Values that are not data.
class Object {
 public:
  virtual ~Object() = default;
  virtual const char* type_name() const = 0;
  virtual bool callable() const { return false; }
  virtual Value call(Renderer& r, Args& args);
  /// Nothing if there is no such attribute.
  virtual std::optional<Value> attribute(Renderer&, std::string_view) { return std::nullopt; }
};

class Function : public Object {
 public:
  using Body = Value (*)(Renderer& r, const Value& self, Args& args);
  Function(Body body, Value self = {}) : body_(body), self_(std::move(self)) {}
  const char* type_name() const override { return "function"; }
  bool callable() const override { return true; }
  Value call(Renderer& r, Args& args) override { return body_(r, self_, args); }

 private:
  Body body_;
  Value self_;
};

class Namespace : public Object {
 public:
  const char* type_name() const override { return "Namespace"; }
  std::optional<Value> attribute(Renderer&, std::string_view name) override;
  Dict members;
};

/// Python's ==.
bool equal(const Value& a, const Value& b);
/// Python's <, as -1, 0, 1; nothing if the two cannot be ordered.
std::optional<int> compare(const Value& a, const Value& b);

}  // namespace dapo::jinja
