// Filters of lists. Those that are generators in Jinja (map, select, unique, ...) return iterators: they can be
// consumed once, have no length, and are true even if they are empty.
#include <algorithm>

#include "tokenizer/jinja_filters.h"
#include "tokenizer/jinja_text.h"

namespace dapo::jinja {

namespace {

Value generated(Renderer& r, std::vector<Value> items) {
  return r.list(std::move(items), Kind::iterator);
}

Value length_filter(Renderer& r, const Value& v, Args&) {
  return r.length(v);
}

Value list_filter(Renderer& r, const Value& v, Args&) {
  return r.list(r.iterate(v));
}

Value first(Renderer& r, const Value& v, Args&) {
  if (v.is(Kind::iterator)) {
    Sequence& s = v.sequence();
    if (s.next < s.items.size()) return s.items[s.next++];
  } else if (const std::vector<Value> items = r.iterate(v); !items.empty()) {
    return items.front();
  }
  return Value::undefined("No first item, sequence was empty.");
}

Value last(Renderer& r, const Value& v, Args&) {
  if (v.is(Kind::iterator)) r.error("'generator' object is not reversible: use |list|last");
  const std::vector<Value> items = r.iterate(v);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value reverse(Renderer& r, const Value& v, Args&) {
  std::vector<Value> items = r.iterate(v);
  std::reverse(items.begin(), items.end());
  if (!v.is_string()) return generated(r, std::move(items));
  std::string out;
  for (const Value& item : items) out += item.text();
  return r.text(std::move(out));
}

Value join(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "join", args, {"d", "attribute"});
  const std::string by = a.text(0, "");
  std::string out;
  bool begun = false;
  for (const Value& item : r.iterate(v)) {
    const Value shown = a[1] && !a[1]->is_none() ? r.path(item, *a[1]) : item;
    r.reserve(by.size() + shown.weight());
    if (std::exchange(begun, true)) out += by;
    out += shown.is_string() ? shown.text() : shown.str();
    if (out.size() > Renderer::kMaxOutput) r.error("join makes more than {} MiB", Renderer::kMaxOutput >> 20);
  }
  return Value(std::move(out));
}

/// The filter or test, with its own arguments, that the remaining arguments name.
Args rest_of(const Args& args, size_t from) {
  Args out;
  if (args.positional.size() > from)
    out.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(from), args.positional.end());
  out.named = args.named;
  return out;
}

Value map_filter(Renderer& r, const Value& v, Args& args) {
  std::vector<Value> out;
  if (args.positional.empty()) {
    const Bound a(r, "map", args, {"", "attribute", "default"});
    const Value& attribute = a.need(1);
    for (const Value& item : r.iterate(v)) out.push_back(r.path(item, attribute, a[2]));
  } else {
    const std::string name = args.positional[0].str();
    for (const Value& item : r.iterate(v)) {
      Args rest = rest_of(args, 1);
      out.push_back(r.filter(name, item, rest));
    }
  }
  return generated(r, std::move(out));
}

/// select, reject, selectattr, rejectattr
template <bool kAttribute, bool kKeep>
Value select(Renderer& r, const Value& v, Args& args) {
  const size_t n = kAttribute ? 1 : 0;
  if (args.positional.size() < n) r.error("selectattr and rejectattr need the attribute's name");
  std::vector<Value> out;
  for (Value& item : r.iterate(v)) {
    const Value subject = kAttribute ? r.path(item, args.positional[0]) : item;
    bool holds = false;
    if (args.positional.size() > n) {
      Args rest = rest_of(args, n + 1);
      holds = r.test(args.positional[n].str(), subject, rest);
    } else {
      holds = subject.truth();
    }
    if (holds == kKeep) out.push_back(std::move(item));
  }
  return generated(r, std::move(out));
}

/// The key by which items are sorted or compared.
Value key_of(Renderer& r, const Value& item, const Value* attribute, bool with_case) {
  const Value key = attribute && !attribute->is_none() ? r.path(item, *attribute) : item;
  return with_case ? key : without_case(key);
}

Value sort(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "sort", args, {"reverse", "case_sensitive", "attribute"});
  std::vector<std::pair<std::vector<Value>, Value>> keyed;
  for (Value& item : r.iterate(v)) {
    std::vector<Value> keys;
    if (a[2] && a[2]->is_string()) {  // several attributes, separated by commas
      static const std::string kComma = ",";
      for (const std::string_view part : split(a[2]->text(), &kComma, -1, false)) {
        const Value name(part);
        keys.push_back(key_of(r, item, &name, a.flag(1)));
      }
    } else {
      keys.push_back(key_of(r, item, a[2], a.flag(1)));
    }
    keyed.emplace_back(std::move(keys), std::move(item));
  }
  const bool down = a.flag(0);
  const auto before = [&](const auto& x, const auto& y) {
    r.step();
    for (size_t i = 0; i < x.first.size(); ++i)
      if (const int o = r.order(x.first[i], y.first[i], "<"); o != 0) return down ? o > 0 : o < 0;
    return false;
  };
  std::stable_sort(keyed.begin(), keyed.end(), before);
  std::vector<Value> out;
  for (auto& [keys, item] : keyed) out.push_back(std::move(item));
  return r.list(std::move(out));
}

Value unique(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "unique", args, {"case_sensitive", "attribute"});
  Dict seen;
  std::vector<Value> out;
  for (Value& item : r.iterate(v)) {
    const Value key = key_of(r, item, a[1], a.flag(0));
    r.reserve(key.weight());
    if (!key.hash_key()) r.error("unique: unhashable type: '{}'", key.type_name());
    if (seen.find(key) != nullptr) continue;
    seen.set(key, true);
    out.push_back(std::move(item));
  }
  return generated(r, std::move(out));
}

template <bool kLargest>
Value extreme(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "min", args, {"case_sensitive", "attribute"});
  std::optional<Value> best, best_key;
  for (Value& item : r.iterate(v)) {
    const Value key = key_of(r, item, a[1], a.flag(0));
    if (best) {
      const int o = r.order(key, *best_key, "<");
      if (kLargest ? o <= 0 : o >= 0) continue;
    }
    best = std::move(item);
    best_key = key;
  }
  return best ? *best : Value::undefined("No aggregated item, sequence was empty.");
}

Value sum(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "sum", args, {"attribute", "start"});
  Value total = a[1] ? *a[1] : Value(0);
  for (const Value& item : r.iterate(v)) total = r.add(total, a[0] && !a[0]->is_none() ? r.path(item, *a[0]) : item);
  return total;
}

Value items(Renderer& r, const Value& v, Args&) {
  if (v.is_undefined()) return generated(r, {});
  if (!v.is_dict()) r.error("items: can only get item pairs from a mapping, not {}", v.type_name());
  std::vector<Value> out;
  for (const auto& [key, value] : v.dict().items) out.push_back(r.list({key, value}, Kind::tuple));
  return generated(r, std::move(out));
}

Value dict_sort(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "dictsort", args, {"case_sensitive", "by", "reverse"});
  const std::string by = a.text(1, "key");
  if (by != "key" && by != "value") r.error("dictsort: you can only sort by either \"key\" or \"value\"");
  if (!v.is_dict()) r.error("dictsort: a mapping is expected, not {}", v.type_name());
  auto sorted = v.dict().items;
  const bool down = a.flag(2), with_case = a.flag(0);
  const auto key = [&](const std::pair<Value, Value>& item) {
    const Value& k = by == "key" ? item.first : item.second;
    return with_case ? k : without_case(k);
  };
  std::stable_sort(sorted.begin(), sorted.end(), [&](const auto& x, const auto& y) {
    r.step();
    const int o = r.order(key(x), key(y), "<");
    return down ? o > 0 : o < 0;
  });
  std::vector<Value> out;
  for (const auto& [k, value] : sorted) out.push_back(r.list({k, value}, Kind::tuple));
  return r.list(std::move(out));
}

Value batch(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "batch", args, {"linecount", "fill_with"});
  const int64_t count = r.integer(a.need(0), "batch");
  if (count < 1 || count > 1 << 20) r.error("batch: lines of {} items", count);
  std::vector<Value> out, line;
  for (Value& item : r.iterate(v)) {
    if (static_cast<int64_t>(line.size()) == count) out.push_back(r.list(std::exchange(line, {})));
    line.push_back(std::move(item));
  }
  if (!line.empty()) {
    while (a[1] && !a[1]->is_none() && static_cast<int64_t>(line.size()) < count) {
      r.reserve(sizeof(Value));
      line.push_back(*a[1]);
    }
    out.push_back(r.list(std::move(line)));
  }
  return generated(r, std::move(out));
}

Value slice(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "slice", args, {"slices", "fill_with"});
  const int64_t count = r.integer(a.need(0), "slice");
  if (count < 1 || count > 1 << 16) r.error("slice: {} slices", count);
  const std::vector<Value> all = r.iterate(v);
  const size_t slices = static_cast<size_t>(count), each = all.size() / slices, longer = all.size() % slices;
  std::vector<Value> out;
  size_t at = 0;
  for (size_t i = 0; i < slices; ++i) {
    const size_t n = each + (i < longer);
    std::vector<Value> part(all.begin() + static_cast<std::ptrdiff_t>(at),
                            all.begin() + static_cast<std::ptrdiff_t>(at + n));
    at += n;
    if (a[1] && !a[1]->is_none() && i >= longer) part.push_back(*a[1]);
    out.push_back(r.list(std::move(part)));
  }
  return generated(r, std::move(out));
}

Value group_by(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "groupby", args, {"attribute", "default", "case_sensitive"});
  const Value& attribute = a.need(0);
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : r.iterate(v)) keyed.emplace_back(r.path(item, attribute, a[1]), std::move(item));
  const auto compared = [&](const Value& key) { return a.flag(2) ? key : without_case(key); };
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& x, const auto& y) {
    r.step();
    return r.order(compared(x.first), compared(y.first), "<") < 0;
  });
  std::vector<Value> out;
  for (size_t i = 0; i < keyed.size();) {
    const Value key = keyed[i].first;
    std::vector<Value> group;
    for (; i < keyed.size() && equal(compared(keyed[i].first), compared(key)); ++i) group.push_back(keyed[i].second);
    out.push_back(r.list({key, r.list(std::move(group))}, Kind::tuple));
  }
  return r.list(std::move(out));
}

Value attribute_filter(Renderer& r, const Value& v, Args& args) {
  return r.attribute(v, Bound(r, "attr", args, {"name"}).need(0).str());
}

}  // namespace

std::vector<std::pair<std::string_view, Operation>> list_filters() {
  return {{"length", length_filter},
          {"count", length_filter},
          {"list", list_filter},
          {"first", first},
          {"last", last},
          {"reverse", reverse},
          {"join", join},
          {"map", map_filter},
          {"select", select<false, true>},
          {"reject", select<false, false>},
          {"selectattr", select<true, true>},
          {"rejectattr", select<true, false>},
          {"sort", sort},
          {"unique", unique},
          {"min", extreme<false>},
          {"max", extreme<true>},
          {"sum", sum},
          {"items", items},
          {"dictsort", dict_sort},
          {"batch", batch},
          {"slice", slice},
          {"groupby", group_by},
          {"attr", attribute_filter}};
}

}  // namespace dapo::jinja
