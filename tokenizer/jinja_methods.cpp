// Methods of str, dict, list and tuple.
#include <algorithm>
#include <unordered_map>

#include "tokenizer/jinja_render.h"
#include "tokenizer/jinja_text.h"

namespace dapo::jinja {

namespace {

/// A text argument that must be a string.
const std::string& string_at(Renderer& r, const Bound& a, size_t i) {
  const Value& v = a.need(i);
  if (!v.is_string()) r.error("a string is expected, not {}", v.type_name());
  return v.text();
}

template <bool kLeft, bool kRight>
Value strip_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "strip", args, {"chars"});
  const std::string* characters = a[0] && !a[0]->is_none() ? &string_at(r, a, 0) : nullptr;
  return r.text(std::string(strip(self.text(), kLeft, kRight, characters)), self.is_safe());
}

template <bool kRight>
Value split_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "split", args, {"sep", "maxsplit"});
  const std::string* by = a[0] && !a[0]->is_none() ? &string_at(r, a, 0) : nullptr;
  if (by && by->empty()) r.error("empty separator");
  const auto parts = split(self.text(), by, a.integer(1, -1), kRight);
  r.reserve(self.text().size());
  return r.list({parts.begin(), parts.end()});
}

Value split_lines_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "splitlines", args, {"keepends"});
  const auto parts = split_lines(self.text(), a.flag(0));
  r.reserve(self.text().size());
  return r.list({parts.begin(), parts.end()});
}

template <bool kEnd>
Value starts_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "startswith", args, {"prefix", "start", "end"});
  std::string_view text = self.text();
  if (a[1] || a[2]) {
    const auto n = static_cast<int64_t>(length_of(text));
    const auto place = [&](int64_t at) { return static_cast<size_t>(std::clamp(at < 0 ? at + n : at, int64_t{0}, n)); };
    const size_t from = offset_of(text, place(a.integer(1, 0))), to = offset_of(text, place(a.integer(2, n)));
    text = to < from ? "" : text.substr(from, to - from);
  }
  const auto fits = [&](const Value& v) {
    if (!v.is_string()) r.error("startswith and endswith take a string or a tuple of strings, not {}", v.type_name());
    return kEnd ? text.ends_with(v.text()) : text.starts_with(v.text());
  };
  const Value& what = a.need(0);
  return what.is(Kind::tuple) ? std::any_of(what.items().begin(), what.items().end(), fits) : fits(what);
}

template <std::string (*kMap)(std::string_view)>
Value mapped(Renderer& r, const Value& self, Args& args) {
  const Bound none(r, "this method", args, {});
  return r.text(kMap(self.text()), self.is_safe());
}

template <char kProperty>
Value all_method(Renderer&, const Value& self, Args&) {
  return all_are(self.text(), kProperty);
}
template <bool kUpper>
Value case_method(Renderer&, const Value& self, Args&) {
  return is_case(self.text(), kUpper);
}

Value replace_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "replace", args, {"old", "new", "count"});
  const std::string &old = string_at(r, a, 0), &by = string_at(r, a, 1);
  const int64_t count = a.integer(2, -1);
  r.reserve(replaced_size(self.text(), old, by, count));
  return Value(replace(self.text(), old, by, count), self.is_safe());
}

Value join_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "join", args, {"iterable"});
  std::string out;
  bool first = true;
  for (const Value& item : r.iterate(a.need(0))) {
    if (!item.is_string()) r.error("join: a string is expected, not {}", item.type_name());
    r.reserve(item.text().size() + self.text().size());
    if (!std::exchange(first, false)) out += self.text();
    out += item.text();
  }
  return Value(std::move(out));
}

Value format_method(Renderer& r, const Value& self, Args& args) {
  return r.text(brace_format(r, self.text(), args), self.is_safe());
}

/// find, rfind (-1 if not found), index, rindex (an error)
template <bool kRight, bool kMust>
Value find_method_of(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "find", args, {"sub", "start", "end"});
  const std::string& what = string_at(r, a, 0);
  const auto n = static_cast<int64_t>(length_of(self.text()));
  r.step(self.text().size() / 16);
  const auto place = [&](int64_t at) { return std::clamp(at < 0 ? at + n : at, int64_t{0}, n); };
  const int64_t start = place(a.integer(1, 0)), end = place(a.integer(2, n));
  const std::string_view all = self.text();
  const size_t from = offset_of(all, static_cast<size_t>(start)), to = offset_of(all, static_cast<size_t>(end));
  size_t at = std::string_view::npos;
  if (from <= to) at = kRight ? all.substr(from, to - from).rfind(what) : all.substr(from, to - from).find(what);
  if (at != std::string_view::npos) return length_of(all.substr(0, from + at));
  if (kMust) r.error("substring not found");
  return -1;
}

Value count_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "count", args, {"sub"});
  const std::string& what = string_at(r, a, 0);
  r.step(self.text().size() / 16);
  if (what.empty()) return length_of(self.text()) + 1;
  size_t n = 0;
  for (size_t at = 0; (at = self.text().find(what, at)) != std::string::npos; at += what.size()) ++n;
  return n;
}

/// ljust, rjust, center, zfill
template <char kHow>
Value pad_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "padding", args, {"width", "fillchar"});
  const std::string fill = kHow == 'z' ? "0" : a.text(1, " ");
  if (length_of(fill) != 1) r.error("the fill character must be exactly one character long");
  const auto n = static_cast<int64_t>(length_of(self.text()));
  const int64_t width = std::max(n, r.integer(a.need(0), "a width")), more = width - n;
  if (more > static_cast<int64_t>(Renderer::kMaxBytes)) r.error("a width of {}", width);
  r.reserve(static_cast<size_t>(more) * fill.size() + self.text().size());
  const int64_t left = kHow == 'l' ? 0 : kHow == 'c' ? more / 2 + (more & width & 1) : more;
  std::string before, after;
  for (int64_t i = 0; i < left; ++i) before += fill;
  for (int64_t i = left; i < more; ++i) after += fill;
  if (kHow == 'z' && !self.text().empty() && (self.text()[0] == '-' || self.text()[0] == '+'))
    return Value(self.text()[0] + before + self.text().substr(1));
  return Value(before + self.text() + after);
}

Value expand_tabs_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "expandtabs", args, {"tabsize"});
  const int64_t size = a.integer(0, 8);
  if (size > 1000) r.error("expandtabs: tabs of {}", size);
  std::string out;
  int64_t column = 0;
  for (const std::string_view c : characters_of(self.text())) {
    const int64_t spaces = c != "\t" || size <= 0 ? 0 : size - column % size;
    r.reserve(c.size() + static_cast<size_t>(spaces));
    column = c == "\n" || c == "\r" ? 0 : c == "\t" ? column + spaces : column + 1;
    out.append(static_cast<size_t>(spaces), ' ').append(c == "\t" ? "" : c);
  }
  return Value(std::move(out));
}

Value is_ascii_method(Renderer&, const Value& self, Args&) {
  return std::all_of(self.text().begin(), self.text().end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

template <bool kRight>
Value partition_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "partition", args, {"sep"});
  const std::string& by = string_at(r, a, 0);
  if (by.empty()) r.error("empty separator");
  const std::string& all = self.text();
  const size_t at = kRight ? all.rfind(by) : all.find(by);
  r.reserve(all.size());
  if (at == all.npos)
    return r.list(kRight ? std::vector<Value>{"", "", all} : std::vector<Value>{all, "", ""}, Kind::tuple);
  return r.list({all.substr(0, at), by, all.substr(at + by.size())}, Kind::tuple);
}

template <bool kEnd>
Value remove_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "removeprefix", args, {"prefix"});
  const std::string &all = self.text(), &what = string_at(r, a, 0);
  if (!(kEnd ? all.ends_with(what) : all.starts_with(what))) return self;
  return r.text(kEnd ? all.substr(0, all.size() - what.size()) : all.substr(what.size()));
}

Value get_method(Renderer& r, const Value& self, Args& args) {
  const Bound a(r, "get", args, {"key", "default"});
  const Value& key = a.need(0);
  if (!key.hash_key()) r.error("{} cannot be a key of a dict", key.type_name());
  if (const Value* found = self.dict().find(key)) return *found;
  return a[1] ? *a[1] : Value::none();
}

/// keys, values, items
template <char kWhat>
Value view_method(Renderer& r, const Value& self, Args& args) {
  const Bound none(r, "this method", args, {});
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict().items)
    out.push_back(kWhat == 'k' ? key : kWhat == 'v' ? value : Value::sequence(Kind::tuple, {key, value}));
  r.reserve(out.size() * (kWhat == 'i' ? 4 : 1) * sizeof(Value));
  return Value::sequence(Kind::view, std::move(out),
                         kWhat == 'k'   ? "dict_keys"
                         : kWhat == 'v' ? "dict_values"
                                        : "dict_items");
}

Value copy_method(Renderer&, const Value& self, Args&) {
  return self;  // values never change
}

Value index_in_list(Renderer& r, const Value& self, Args& args) {
  const Value& what = Bound(r, "index", args, {"value"}).need(0);
  r.step(self.weight() / 16);
  for (size_t i = 0; i < self.items().size(); ++i)
    if (equal(self.items()[i], what)) return i;
  r.error("{} is not in the list", what.repr().substr(0, 80));
}

Value count_in_list(Renderer& r, const Value& self, Args& args) {
  const Value& what = Bound(r, "count", args, {"value"}).need(0);
  r.step(self.weight() / 16);
  return static_cast<size_t>(
      std::count_if(self.items().begin(), self.items().end(), [&](const Value& v) { return equal(v, what); }));
}

using Table = std::unordered_map<std::string_view, Operation>;

const Table& string_methods() {
  static const Table all = {{"strip", strip_method<true, true>},
                            {"lstrip", strip_method<true, false>},
                            {"rstrip", strip_method<false, true>},
                            {"split", split_method<false>},
                            {"rsplit", split_method<true>},
                            {"splitlines", split_lines_method},
                            {"startswith", starts_method<false>},
                            {"endswith", starts_method<true>},
                            {"upper", mapped<upper>},
                            {"lower", mapped<lower>},
                            {"casefold", mapped<lower>},
                            {"title", mapped<title_method>},
                            {"capitalize", mapped<capitalize>},
                            {"swapcase", mapped<swap_case>},
                            {"replace", replace_method},
                            {"join", join_method},
                            {"format", format_method},
                            {"find", find_method_of<false, false>},
                            {"rfind", find_method_of<true, false>},
                            {"index", find_method_of<false, true>},
                            {"rindex", find_method_of<true, true>},
                            {"count", count_method},
                            {"ljust", pad_method<'l'>},
                            {"rjust", pad_method<'r'>},
                            {"center", pad_method<'c'>},
                            {"zfill", pad_method<'z'>},
                            {"partition", partition_method<false>},
                            {"rpartition", partition_method<true>},
                            {"removeprefix", remove_method<false>},
                            {"removesuffix", remove_method<true>},
                            {"expandtabs", expand_tabs_method},
                            {"isascii", is_ascii_method},
                            {"isdigit", all_method<'d'>},
                            {"isalpha", all_method<'a'>},
                            {"isalnum", all_method<'n'>},
                            {"isspace", all_method<'s'>},
                            {"isnumeric", all_method<'m'>},
                            {"isdecimal", all_method<'c'>},
                            {"isupper", case_method<true>},
                            {"islower", case_method<false>}};
  return all;
}

}  // namespace

Operation find_method(const Value& self, std::string_view name) {
  static const Table dicts = {{"get", get_method},
                              {"keys", view_method<'k'>},
                              {"values", view_method<'v'>},
                              {"items", view_method<'i'>},
                              {"copy", copy_method}};
  static const Table lists = {{"index", index_in_list}, {"count", count_in_list}, {"copy", copy_method}};
  const Table* table = self.is_string()                              ? &string_methods()
                       : self.is_dict()                              ? &dicts
                       : self.is(Kind::list) || self.is(Kind::tuple) ? &lists
                                                                     : nullptr;
  if (table == nullptr) return nullptr;
  const auto found = table->find(name);
  return found == table->end() ? nullptr : found->second;
}

bool is_mutation(const Value& self, std::string_view name) {
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  static constexpr std::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                               "insert", "sort",  "extend", "remove"};
  if (self.is_dict()) return std::find(std::begin(kDict), std::end(kDict), name) != std::end(kDict);
  return self.is(Kind::list) && std::find(std::begin(kList), std::end(kList), name) != std::end(kList);
}

}  // namespace dapo::jinja
