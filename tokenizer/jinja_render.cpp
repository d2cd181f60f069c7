#include "tokenizer/jinja_render.h"

namespace dapo::jinja {

using K = Stmt::Kind;

namespace {

class Macro : public Object {
 public:
  Macro(const Stmt& stmt, ScopePtr scope) : stmt_(stmt), scope_(std::move(scope)) {}
  const char* type_name() const override { return "Macro"; }
  bool callable() const override { return true; }
  Value call(Renderer& r, Args& args) override { return r.call_macro(stmt_, scope_, args); }
  std::optional<Value> attribute(Renderer&, std::string_view name) override {
    return name == "name" ? std::optional<Value>(stmt_.text) : std::nullopt;
  }

 private:
  const Stmt& stmt_;
  const ScopePtr scope_;
};

/// The variable "loop".
class Loop : public Object, public std::enable_shared_from_this<Loop> {
 public:
  Loop(const Stmt& stmt, ScopePtr scope, const std::vector<Value>& items, int depth)
      : stmt_(stmt), scope_(std::move(scope)), items_(items), depth_(depth) {}
  const char* type_name() const override { return "LoopContext"; }
  bool callable() const override { return stmt_.recursive; }

  Value call(Renderer& r, Args& args) override {
    if (!stmt_.recursive) r.error("loop() in a loop that is not recursive: write {{% for ... recursive %}}");
    const Bound a(r, "loop", args, {"iterable"});
    return r.text(r.run_loop(stmt_, scope_, a.need(0), depth_ + 1));
  }

  std::optional<Value> attribute(Renderer&, std::string_view name) override {
    const size_t n = items_.size();
    if (name == "index") return index + 1;
    if (name == "index0") return index;
    if (name == "revindex") return n - index;
    if (name == "revindex0") return n - index - 1;
    if (name == "first") return index == 0;
    if (name == "last") return index + 1 == n;
    if (name == "length") return n;
    if (name == "depth") return depth_ + 1;
    if (name == "depth0") return depth_;
    if (name == "previtem") return index > 0 ? items_[index - 1] : Value::undefined("there is no previous item");
    if (name == "nextitem") return index + 1 < n ? items_[index + 1] : Value::undefined("there is no next item");
    if (name == "cycle")
      return bound([](Renderer& r, const Value& self, Args& args) {
        if (args.positional.empty()) r.error("loop.cycle() without items to cycle through");
        return args.positional[of(self).index % args.positional.size()];
      });
    if (name == "changed")
      return bound([](Renderer& r, const Value& self, Args& args) {
        const Value now = r.list(args.positional, Kind::tuple);
        Loop& loop = of(self);
        const bool same = loop.seen_ && equal(*loop.seen_, now);
        loop.seen_ = now;
        return Value(!same);
      });
    return std::nullopt;
  }

  size_t index = 0;

 private:
  Value bound(Function::Body body) {
    return std::shared_ptr<Object>(std::make_shared<Function>(body, std::shared_ptr<Object>(shared_from_this())));
  }
  static Loop& of(const Value& self) { return static_cast<Loop&>(*self.object()); }

  const Stmt& stmt_;
  const ScopePtr scope_;
  const std::vector<Value> items_;
  const int depth_;
  std::optional<Value> seen_;
};

}  // namespace

Value* Scope::find(std::string_view name) {
  for (Scope* scope = this; scope != nullptr; scope = scope->outer.get())
    for (auto& [known, value] : scope->variables)
      if (known == name) return &value;
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  for (auto& [known, old] : variables)
    if (known == name) {
      old = std::move(value);
      return;
    }
  variables.emplace_back(name, std::move(value));
}

/// Makes `scope` the target of assignments during its lifetime.
class Renderer::Inside {
 public:
  Inside(Renderer& r, ScopePtr scope) : r_(r), before_(std::exchange(r.scope_, std::move(scope))) {}
  ~Inside() { r_.scope_ = before_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Renderer& r_;
  const ScopePtr before_;
};

Renderer::~Renderer() {
  for (const ScopePtr& scope : captured_) scope->variables.clear();
  for (const auto& space : spaces_) space->members = {};
}

void Renderer::step(size_t n) {
  steps_ += n;
  if (steps_ > kMaxSteps) error("the template takes more than {} steps", kMaxSteps);
}

void Renderer::reserve(size_t bytes) {
  if (bytes > kMaxBytes - bytes_) error("the template makes more than {} MiB of values", kMaxBytes >> 20);
  bytes_ += bytes;
  step(bytes / 64);
}

Value Renderer::text(std::string text, bool safe) {
  reserve(text.size());
  return Value(std::move(text), safe);
}

Value Renderer::list(std::vector<Value> items, Kind kind) {
  reserve(items.size() * sizeof(Value));
  for (const Value& item : items)
    if (item.depth() + 1 >= kMaxDepth) error("lists nested deeper than {} levels", kMaxDepth);
  return Value::sequence(kind, std::move(items));
}

std::string Renderer::str(const Value& value) {
  reserve(value.weight());
  return value.str();
}

void Renderer::write(std::string_view text) {
  if (out_.size() + text.size() > kMaxOutput) error("the template writes more than {} MiB", kMaxOutput >> 20);
  out_ += text;
}

std::string Renderer::run(const std::vector<StmtPtr>& body, const Dict& variables) {
  const auto given = std::make_shared<Scope>();
  for (const auto& [name, value] : global_functions().items) given->set(name.text(), value);
  for (const auto& [name, value] : variables.items) given->set(name.text(), value);
  const auto own = std::make_shared<Scope>(Scope{given, {}});
  captured_.push_back(own);  // macros of the template itself
  const Inside inside(*this, own);
  run_all(body);
  return std::move(out_);
}

Renderer::Flow Renderer::run_all(const std::vector<StmtPtr>& body) {
  for (const StmtPtr& s : body)
    if (const Flow flow = run_one(*s); flow != Flow::on) return flow;
  return Flow::on;
}

Renderer::Flow Renderer::run_one(const Stmt& s) {
  line_ = s.line;
  step();
  switch (s.kind) {
    case K::text:
      write(s.text);
      break;
    case K::print:
      if (const Value value = evaluate(*s.value); value.is_string())
        write(value.text());
      else
        write(str(value));
      break;
    case K::condition:
      return run_all(evaluate(*s.value).truth() ? s.body : s.orelse);
    case K::loop:
      loop(s, evaluate(*s.value), 0);
      break;
    case K::set:
    case K::set_block:
      run_set(s);
      break;
    case K::macro:
      capture_scope();
      scope_->set(s.text, std::shared_ptr<Object>(std::make_shared<Macro>(s, scope_)));
      break;
    case K::call_block:
      run_call_block(s);
      break;
    case K::filter_block: {
      const Inside inside(*this, std::make_shared<Scope>(Scope{scope_, {}}));
      const std::string inner = capture([&] { run_all(s.body); });
      write(str(run_filters(*s.value, text(inner))));
      break;
    }
    case K::with:
      run_with(s);
      break;
    case K::scope: {
      const Inside inside(*this, std::make_shared<Scope>(Scope{scope_, {}}));
      return run_all(s.body);
    }
    case K::stop:
      return Flow::stop;
    case K::next:
      return Flow::next;
  }
  return Flow::on;
}

void Renderer::capture_scope() {
  if (captured_.back() == scope_) return;
  reserve(sizeof(Scope) + sizeof(Value));
  captured_.push_back(scope_);
}

void Renderer::run_set(const Stmt& s) {
  if (s.kind == K::set) {
    const Value value = evaluate(*s.value);
    return assign(s.target, value, scope_);
  }
  Value value;
  {
    const Inside inside(*this, std::make_shared<Scope>(Scope{scope_, {}}));
    value = text(capture([&] { run_all(s.body); }));
    if (s.value) value = run_filters(*s.value, value);
  }
  assign(s.target, value, scope_);
}

/// A chain of filters of which the innermost has no value of its own.
Value Renderer::run_filters(const Expr& e, const Value& value) {
  const Value inner = e.parts[0] ? run_filters(*e.parts[0], value) : value;
  Args args = arguments(e.arguments);
  line_ = e.line;
  return filter(e.name, inner, args);
}

void Renderer::run_call_block(const Stmt& s) {
  capture_scope();
  const Value caller(std::shared_ptr<Object>(std::make_shared<Macro>(s, scope_)));
  const Value callee = evaluate(*s.value->parts[0]);
  Args args = arguments(s.value->arguments);
  args.named.emplace_back("caller", caller);
  line_ = s.line;
  write(str(call(callee, args)));
}

void Renderer::run_with(const Stmt& s) {
  const auto scope = std::make_shared<Scope>(Scope{scope_, {}});
  for (const auto& [target, value] : s.assigned)
    assign(target, evaluate(*value), scope);  // evaluated in the outer scope
  const Inside inside(*this, scope);
  run_all(s.body);
}

void Renderer::assign(const Target& target, const Value& value, const ScopePtr& scope) {
  if (!target.several.empty()) {
    const std::vector<Value> items = iterate(value);
    if (items.size() != target.several.size())
      error("{} values where {} are to be assigned", items.size(), target.several.size());
    for (size_t i = 0; i < items.size(); ++i) assign(target.several[i], items[i], scope);
  } else if (target.object.empty()) {
    scope->set(target.name, value);
  } else {
    const Value* space = scope->find(target.object);
    auto* members = space && space->is_object() ? dynamic_cast<Namespace*>(space->object().get()) : nullptr;
    if (members == nullptr) error("'{}' is not a namespace: its attribute cannot be assigned to", target.object);
    if (target.name.starts_with('_')) error("a namespace cannot hold '{}': it begins with an underscore", target.name);
    reserve(target.name.size() + 2 * sizeof(Value));
    members->members.set(target.name, value);
  }
}

void Renderer::loop(const Stmt& s, const Value& over, int depth) {
  std::vector<Value> items = iterate(over);
  if (s.test) {
    std::vector<Value> kept;
    for (Value& item : items) {
      const Inside inside(*this, std::make_shared<Scope>(Scope{scope_, {}}));
      assign(s.target, item, scope_);
      if (evaluate(*s.test).truth()) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  const auto state = std::make_shared<Loop>(s, scope_, items, depth);
  const Value variable(std::shared_ptr<Object>{state});
  bool completed = false;
  for (; state->index < items.size(); ++state->index) {
    step();
    const Inside inside(*this, std::make_shared<Scope>(Scope{scope_, {}}));
    reserve(2 * sizeof(Value));
    scope_->set("loop", variable);
    assign(s.target, items[state->index], scope_);
    const Flow flow = run_all(s.body);
    if (flow == Flow::stop) break;
    completed |= flow == Flow::on;
  }
  // As Jinja compiles it: "else" runs if no iteration of the body was completed.
  if (completed || s.orelse.empty()) return;
  const Inside inside(*this, std::make_shared<Scope>(Scope{scope_, {}}));
  run_all(s.orelse);
}

std::string Renderer::run_loop(const Stmt& s, const ScopePtr& scope, const Value& items, int depth) {
  const Inside inside(*this, scope);
  return capture([&] { loop(s, items, depth); });
}

Value Renderer::call_macro(const Stmt& s, const ScopePtr& outer, Args& args) {
  const auto scope = std::make_shared<Scope>(Scope{outer, {}});
  const Inside inside(*this, scope);
  const size_t count = s.parameters.size();
  const auto take = [&](std::string_view name) -> std::optional<Value> {
    for (size_t i = 0; i < args.named.size(); ++i)
      if (args.named[i].first == name) {
        Value value = std::move(args.named[i].second);
        args.named.erase(args.named.begin() + static_cast<std::ptrdiff_t>(i));
        return value;
      }
    return std::nullopt;
  };
  std::vector<const Parameter*> absent;
  bool own_caller = false;
  for (size_t i = 0; i < count; ++i) {
    const Parameter& p = s.parameters[i];
    own_caller |= p.name == "caller";
    if (i < args.positional.size())
      scope->set(p.name, args.positional[i]);
    else if (auto value = take(p.name))
      scope->set(p.name, std::move(*value));
    else
      absent.push_back(&p);
  }
  if (s.reads_caller && !own_caller && s.kind == K::macro)
    scope->set("caller",
               take("caller").value_or(Value::undefined("no caller: the macro was not called by a call block")));
  if (s.reads_kwargs && s.kind == K::macro) {
    Dict rest;
    for (const auto& [name, value] : args.named) rest.set(name, value);
    scope->set("kwargs", std::move(rest));
  } else if (!args.named.empty()) {
    error("macro '{}' takes no argument '{}'", s.text, args.named[0].first);
  }
  if (s.reads_varargs && s.kind == K::macro) {
    const auto from = args.positional.begin() + static_cast<std::ptrdiff_t>(std::min(count, args.positional.size()));
    scope->set("varargs", list({from, args.positional.end()}, Kind::tuple));
  } else if (args.positional.size() > count) {
    error("macro '{}' takes at most {} arguments, but got {}", s.text, count, args.positional.size());
  }
  for (const Parameter* p : absent)
    scope->set(p->name, p->otherwise ? evaluate(*p->otherwise)
                                     : Value::undefined(fmt::format("parameter '{}' was not provided", p->name)));
  return text(capture([&] { run_all(s.body); }));
}

}  // namespace dapo::jinja
