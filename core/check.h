// Checks that are always on, and the one exception type of the project.
//
// A failure names what was expected, what was found, where, and how to repair it. Bad input (files, flags, settings) is
// thrown as Error with exit code 2 and reaches the user as one line; a broken invariant of ours carries file:line.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace dapo {

/// Exit codes of both programs.
enum ExitCode : int {
  kExitOk = 0,
  kExitUsage = 2,      ///< bad usage, config or input: one line, what, where, how to repair
  kExitResources = 3,  ///< memory, disk, device
  kExitNumerics = 4,   ///< numbers were not finite, K times in a row
  kExitLostRank = 5,   ///< a rank died or hangs
  kExitInternal = 70,  ///< a bug of ours (EX_SOFTWARE)
  kExitInterrupted = 130,
};

/// The only exception this project throws. `code` is the exit code that the mains return.
class Error : public std::runtime_error {
 public:
  Error(int code, const std::string& message) : std::runtime_error(message), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

/// Throws Error with the given exit code and a formatted message.
template <class... A>
[[noreturn]] void fail(int code, fmt::format_string<A...> text, A&&... args) {
  throw Error(code, fmt::format(text, std::forward<A>(args)...));
}

/// Bad usage, config or input (exit code 2): say what, where and how to repair it.
template <class... A>
[[noreturn]] void fail_input(fmt::format_string<A...> text, A&&... args) {
  throw Error(kExitUsage, fmt::format(text, std::forward<A>(args)...));
}

namespace detail {
[[noreturn]] inline void check_failed(const char* file, int line, const char* expression, const std::string& values,
                                      const std::string& text) {
  throw Error(kExitInternal, fmt::format("{}:{}: check failed: {}{}{}{}", file, line, expression,
                                         values.empty() ? "" : " (" + values + ")", text.empty() ? "" : ": ", text));
}
template <class T>
std::string show(const T& v) {
  if constexpr (fmt::is_formattable<T>::value)
    return fmt::format("{}", v);
  else if constexpr (std::is_enum_v<T>)
    return fmt::format("{}", static_cast<long long>(v));
  else
    return "?";
}
}  // namespace detail

}  // namespace dapo

/// CHECK(condition) or CHECK(condition, "text {}", value): an invariant of ours; always on.
#define CHECK(condition, ...)                                                                          \
  do {                                                                                                 \
    if (!(condition)) [[unlikely]]                                                                     \
      ::dapo::detail::check_failed(__FILE__, __LINE__, #condition, "", ::fmt::format("" __VA_ARGS__)); \
  } while (0)

#define DAPO_CHECK_OP(a, op, b, ...)                                                                              \
  do {                                                                                                            \
    const auto& check_a_ = (a);                                                                                   \
    const auto& check_b_ = (b);                                                                                   \
    if (!(check_a_ op check_b_)) [[unlikely]]                                                                     \
      ::dapo::detail::check_failed(__FILE__, __LINE__, #a " " #op " " #b,                                         \
                                   ::dapo::detail::show(check_a_) + " against " + ::dapo::detail::show(check_b_), \
                                   ::fmt::format("" __VA_ARGS__));                                                \
  } while (0)

/// CHECK_EQ(actual, expected[, "text {}", value]) and so on: print both values.
#define CHECK_EQ(a, b, ...) DAPO_CHECK_OP(a, ==, b, __VA_ARGS__)
#define CHECK_NE(a, b, ...) DAPO_CHECK_OP(a, !=, b, __VA_ARGS__)
#define CHECK_LT(a, b, ...) DAPO_CHECK_OP(a, <, b, __VA_ARGS__)
#define CHECK_LE(a, b, ...) DAPO_CHECK_OP(a, <=, b, __VA_ARGS__)
#define CHECK_GT(a, b, ...) DAPO_CHECK_OP(a, >, b, __VA_ARGS__)
#define CHECK_GE(a, b, ...) DAPO_CHECK_OP(a, >=, b, __VA_ARGS__)
