// Tests of chat templates: what may follow "is".
#include <cmath>
#include <unordered_map>

#include "tokenizer/jinja_render.h"
#include "tokenizer/jinja_text.h"

namespace dapo::jinja {

namespace {

/// A test without arguments, by a property of the value.
template <bool (*kHolds)(const Value&)>
Value plain(Renderer& r, const Value& v, Args& args) {
  const Bound none(r, "this test", args, {});
  return kHolds(v);
}

bool is_defined(const Value& v) {
  return !v.is_undefined();
}
bool is_undefined(const Value& v) {
  return v.is_undefined();
}
bool is_none(const Value& v) {
  return v.is_none();
}
bool is_boolean(const Value& v) {
  return v.is(Kind::boolean);
}
bool is_true(const Value& v) {
  return v.is(Kind::boolean) && v.truth();
}
bool is_false(const Value& v) {
  return v.is(Kind::boolean) && !v.truth();
}
bool is_integer(const Value& v) {
  return v.is(Kind::integer) || v.is(Kind::big);
}
bool is_float(const Value& v) {
  return v.is(Kind::real);
}
bool is_number(const Value& v) {
  return v.is_number();
}
bool is_string(const Value& v) {
  return v.is_string();
}
bool is_mapping(const Value& v) {
  return v.is_dict();
}
bool is_iterable(const Value& v) {
  return v.is_undefined() || v.is_string() || v.is_dict() || v.is_sequence();
}
bool is_sequence(const Value& v) {
  return v.is_undefined() || v.is_string() || v.is_dict() || v.is_indexed();
}
bool is_callable(const Value& v) {
  return v.is_undefined() || (v.is_object() && v.object()->callable());
}
bool is_escaped(const Value& v) {
  return v.is_safe();
}
bool is_lower(const Value& v) {
  return is_case(v.str(), false);
}
bool is_upper(const Value& v) {
  return is_case(v.str(), true);
}

Value is_odd(Renderer& r, const Value& v, Args&) {
  const Value rest = r.arithmetic("%", v, 2);
  return equal(rest, 1);
}
Value is_even(Renderer& r, const Value& v, Args&) {
  return equal(r.arithmetic("%", v, 2), 0);
}
Value is_divisible(Renderer& r, const Value& v, Args& args) {
  return equal(r.arithmetic("%", v, Bound(r, "divisibleby", args, {"num"}).need(0)), 0);
}
Value is_equal(Renderer& r, const Value& v, Args& args) {
  return equal(v, Bound(r, "equalto", args, {"other"}).need(0));
}
Value is_unequal(Renderer& r, const Value& v, Args& args) {
  return !equal(v, Bound(r, "ne", args, {"other"}).need(0));
}
Value is_less(Renderer& r, const Value& v, Args& args) {
  return r.order(v, Bound(r, "lt", args, {"other"}).need(0), "<") < 0;
}
Value is_less_or_equal(Renderer& r, const Value& v, Args& args) {
  return r.order(v, Bound(r, "le", args, {"other"}).need(0), "<=") <= 0;
}
Value is_greater(Renderer& r, const Value& v, Args& args) {
  return r.order(v, Bound(r, "gt", args, {"other"}).need(0), ">") > 0;
}
Value is_greater_or_equal(Renderer& r, const Value& v, Args& args) {
  return r.order(v, Bound(r, "ge", args, {"other"}).need(0), ">=") >= 0;
}
Value is_in(Renderer& r, const Value& v, Args& args) {
  return r.contains(Bound(r, "in", args, {"seq"}).need(0), v);
}
/// The same object, for containers; equal and of the same type, for values without a meaningful identity.
Value is_same(Renderer& r, const Value& v, Args& args) {
  const Value& other = Bound(r, "sameas", args, {"other"}).need(0);
  if (v.kind() != other.kind()) return false;
  if (v.is_dict()) return &v.dict() == &other.dict();
  if (v.is_sequence()) return &v.sequence() == &other.sequence();
  return equal(v, other);
}
Value is_filter(Renderer&, const Value& v, Args&) {
  return find_filter(v.str()) != nullptr;
}
Value is_test(Renderer&, const Value& v, Args&) {
  return find_test(v.str()) != nullptr;
}

}  // namespace

Operation find_test(std::string_view name) {
  static const std::unordered_map<std::string_view, Operation> all = {{"defined", plain<is_defined>},
                                                                      {"undefined", plain<is_undefined>},
                                                                      {"none", plain<is_none>},
                                                                      {"boolean", plain<is_boolean>},
                                                                      {"true", plain<is_true>},
                                                                      {"false", plain<is_false>},
                                                                      {"integer", plain<is_integer>},
                                                                      {"float", plain<is_float>},
                                                                      {"number", plain<is_number>},
                                                                      {"string", plain<is_string>},
                                                                      {"mapping", plain<is_mapping>},
                                                                      {"iterable", plain<is_iterable>},
                                                                      {"sequence", plain<is_sequence>},
                                                                      {"callable", plain<is_callable>},
                                                                      {"escaped", plain<is_escaped>},
                                                                      {"lower", plain<is_lower>},
                                                                      {"upper", plain<is_upper>},
                                                                      {"odd", is_odd},
                                                                      {"even", is_even},
                                                                      {"divisibleby", is_divisible},
                                                                      {"sameas", is_same},
                                                                      {"in", is_in},
                                                                      {"filter", is_filter},
                                                                      {"test", is_test},
                                                                      {"eq", is_equal},
                                                                      {"==", is_equal},
                                                                      {"equalto", is_equal},
                                                                      {"ne", is_unequal},
                                                                      {"!=", is_unequal},
                                                                      {"lt", is_less},
                                                                      {"<", is_less},
                                                                      {"lessthan", is_less},
                                                                      {"le", is_less_or_equal},
                                                                      {"<=", is_less_or_equal},
                                                                      {"gt", is_greater},
                                                                      {">", is_greater},
                                                                      {"greaterthan", is_greater},
                                                                      {"ge", is_greater_or_equal},
                                                                      {">=", is_greater_or_equal}};
  const auto found = all.find(name);
  return found == all.end() ? nullptr : found->second;
}

}  // namespace dapo::jinja
