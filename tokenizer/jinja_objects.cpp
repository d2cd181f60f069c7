// The functions available to every chat template.
#include <ctime>

#include "tokenizer/jinja.h"
#include "tokenizer/jinja_render.h"

namespace dapo::jinja {

namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox

Value range(Renderer& r, const Value&, Args& args) {
  if (args.positional.empty() || args.positional.size() > 3 || !args.named.empty())
    r.error("range() takes one to three numbers");
  int64_t given[3] = {0, 0, 1};
  const size_t n = args.positional.size();
  for (size_t i = 0; i < n; ++i) given[n == 1 ? 1 : i] = r.integer(args.positional[i], "range()'s argument");
  const auto [begin, end, step] = given;
  if (step == 0) r.error("range()'s step is 0");
  std::vector<Value> items;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange) r.error("a range of more than {} numbers", kMaxRange);
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  r.reserve(items.size() * sizeof(Value));
  return Value::sequence(
      Kind::range, std::move(items),
      step == 1 ? fmt::format("range({}, {})", begin, end) : fmt::format("range({}, {}, {})", begin, end, step));
}

/// The arguments of dict() and namespace(), as one dict.
Dict members(Renderer& r, const char* function, Args& args) {
  Dict out;
  if (args.positional.size() > 1) r.error("{}() takes one dict and named values", function);
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.is_dict()) {
      out = from.dict();
    } else {
      for (const Value& pair : r.iterate(from)) {
        const std::vector<Value> two = r.iterate(pair);
        if (two.size() != 2 || !two[0].hash_key())
          r.error("{}() got a list that does not consist of (key, value) pairs", function);
        out.set(two[0], two[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) out.set(name, value);
  for (const auto& [key, value] : out.items)
    if (value.depth() + 1 >= kMaxDepth) r.error("dicts nested deeper than {} levels", kMaxDepth);
  r.reserve(out.items.size() * 4 * sizeof(Value));
  return out;
}

Value make_dict(Renderer& r, const Value&, Args& args) {
  return members(r, "dict", args);
}

Value make_namespace(Renderer& r, const Value&, Args& args) {
  const auto space = std::make_shared<Namespace>();
  space->members = members(r, "namespace", args);
  for (const auto& [key, value] : space->members.items)
    if (key.is_string() && key.text().starts_with('_'))
      r.error("a namespace cannot hold '{}': it begins with an underscore", key.text());
  r.reserve(sizeof(Namespace));
  r.remember(space);
  return std::shared_ptr<Object>(space);
}

Value raise_exception(Renderer& r, const Value&, Args& args) {
  const Bound a(r, "raise_exception", args, {"message"});
  r.error("the template refuses this conversation: {}", r.str(a.need(0)));
}

Value strftime_now(Renderer& r, const Value&, Args& args) {
  const Bound a(r, "strftime_now", args, {"format"});
  const std::string format = a.text(0, "");
  if (format.empty()) return Value("");
  if (format.size() > 1000) r.error("strftime_now: a format of {} bytes", format.size());
  const std::time_t now = template_time();
  std::tm local{};
  localtime_r(&now, &local);
  std::string out(format.size() * 64, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &local));
  return r.text(std::move(out));
}

/// cycler("odd", "even"): .next(), .current, .reset()
class Cycler : public Object, public std::enable_shared_from_this<Cycler> {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  const char* type_name() const override { return "Cycler"; }
  std::optional<Value> attribute(Renderer&, std::string_view name) override {
    if (name == "current") return items_[at_];
    if (name == "next" || name == "reset")
      return std::shared_ptr<Object>(std::make_shared<Step>(shared_from_this(), name == "next"));
    return std::nullopt;
  }

 private:
  struct Step : Object {
    Step(std::shared_ptr<Cycler> c, bool next) : cycler(std::move(c)), forward(next) {}
    const char* type_name() const override { return "method"; }
    bool callable() const override { return true; }
    Value call(Renderer&, Args&) override {
      const size_t at = std::exchange(cycler->at_, forward ? (cycler->at_ + 1) % cycler->items_.size() : 0);
      return forward ? cycler->items_[at] : Value::none();
    }
    const std::shared_ptr<Cycler> cycler;
    const bool forward;
  };
  const std::vector<Value> items_;
  size_t at_ = 0;
};

Value make_cycler(Renderer& r, const Value&, Args& args) {
  if (args.positional.empty()) r.error("cycler() needs at least one item");
  return std::shared_ptr<Object>(std::make_shared<Cycler>(r.list(args.positional).items()));
}

/// joiner(", "): empty on the first call, then the separator.
class Joiner : public Object {
 public:
  explicit Joiner(std::string by) : by_(std::move(by)) {}
  const char* type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  Value call(Renderer& r, Args&) override { return r.text(std::exchange(used_, true) ? by_ : ""); }

 private:
  const std::string by_;
  bool used_ = false;
};

Value make_joiner(Renderer& r, const Value&, Args& args) {
  const Bound a(r, "joiner", args, {"sep"});
  return std::shared_ptr<Object>(std::make_shared<Joiner>(a.text(0, ", ")));
}

}  // namespace

const Dict& global_functions() {
  static const Dict all = [] {
    Dict out;
    const std::pair<const char*, Operation> functions[] = {{"range", range},
                                                           {"dict", make_dict},
                                                           {"namespace", make_namespace},
                                                           {"raise_exception", raise_exception},
                                                           {"strftime_now", strftime_now},
                                                           {"cycler", make_cycler},
                                                           {"joiner", make_joiner}};
    for (const auto& [name, body] : functions) out.set(name, std::shared_ptr<Object>(std::make_shared<Function>(body)));
    return out;
  }();
  return all;
}

}  // namespace dapo::jinja
