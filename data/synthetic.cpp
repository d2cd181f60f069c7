#include "data/synthetic.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/check.h"

namespace dapo {

namespace {
using Json = nlohmann::ordered_json;

int apply(char op, int a, int b) {
  return (op == '+' ? a + b : a - b + 5) % 5;
}

void write_lines(const std::filesystem::path& path, const std::vector<Json>& rows) {
  std::ofstream out(path, std::ios::binary);
  for (const Json& row : rows) out << row.dump() << '\n';
  out.close();
  if (!out) fail(kExitResources, "{}: cannot be written: is the disk full, or the folder read-only?", path.string());
}

void make_folder(const std::filesystem::path& folder) {
  if (folder.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail_input("{}: cannot create this folder: {}", folder.string(), error.message());
}
}  // namespace

std::string Chain::prompt() const {
  std::string out(1, static_cast<char>('0' + start));
  for (const auto& [op, b] : steps) {
    out += op;
    out += static_cast<char>('0' + b);
  }
  out.resize(1 + 2 * kChainMost, ' ');
  return out + '\n';
}

int Chain::answer() const {
  int a = start;
  for (const auto& [op, b] : steps) a = apply(op, a, b);
  return a;
}

const char* name_of(Teacher t) {
  constexpr std::array names{"steps", "wordy", "sloppy", "guess"};
  return names[static_cast<size_t>(t)];
}

Chain draw_chain(Rng& rng) {
  Chain c;
  const int n = rng.between(2, kChainMost);
  c.start = rng.between(0, 4);
  for (int i = 0; i < n; ++i) {
    const char op = rng.below(2) ? '+' : '-';
    c.steps.emplace_back(op, rng.between(0, 4));
  }
  return c;
}

Teacher draw_teacher(Rng& rng) {
  const uint64_t tenth = rng.below(10);
  return tenth < 1 ? Teacher::kSteps : tenth < 3 ? Teacher::kWordy : tenth < 6 ? Teacher::kSloppy : Teacher::kGuess;
}

std::string respond(Rng& rng, const Chain& c, Teacher t) {
  if (t == Teacher::kGuess) return fmt::format("Answer: {}", rng.between(0, 4));
  int a = c.start;
  std::string out;
  for (const auto& [op, b] : c.steps) {
    a = apply(op, a, b);
    if (t == Teacher::kSloppy && rng.below(5) == 0) a = rng.between(0, 4);
    out += fmt::format("={}", a);
  }
  if (t == Teacher::kWordy) out += "\nhold on, let me see.";
  return out + fmt::format("\nAnswer: {}", a);
}

void write_chain(const std::string& folder, uint64_t seed, const ChainSizes& sizes) {
  make_folder(folder);
  Rng rng(seed);
  std::unordered_set<std::string> seen;
  const auto fresh = [&] {
    for (;;) {
      Chain c = draw_chain(rng);
      if (seen.insert(c.prompt()).second) return c;
    }
  };
  const auto questions = [&](const char* name, size_t n) {
    std::vector<Json> rows;
    for (size_t i = 0; i < n; ++i) {
      const Chain c = fresh();
      rows.push_back({{"prompt", c.prompt()}, {"answer", std::to_string(c.answer())}, {"operations", c.steps.size()}});
    }
    write_lines(std::filesystem::path(folder) / name, rows);
  };
  const auto lessons = [&](const char* name, size_t n, bool crowd) {
    std::vector<Json> rows;
    for (size_t i = 0; i < n; ++i) {
      const Chain c = fresh();
      const Teacher t = crowd ? draw_teacher(rng) : Teacher::kSteps;
      rows.push_back({{"prompt", c.prompt()}, {"response", respond(rng, c, t)}, {"teacher", name_of(t)}});
    }
    write_lines(std::filesystem::path(folder) / name, rows);
  };
  questions("test.jsonl", sizes.test);
  questions("train.jsonl", sizes.train);
  lessons("skill.jsonl", sizes.skill, false);
  lessons("crowd.jsonl", sizes.crowd, true);
}

Countdown draw_countdown(Rng& rng, int count) {
  CHECK(count >= 2 && count <= 8, "countdown takes 2 to 8 numbers, got {}", count);
  struct Part {
    int64_t value;
    std::string text;
  };
  for (;;) {
    Countdown task;
    std::vector<Part> parts;
    for (int i = 0; i < count; ++i) {
      task.numbers.push_back(rng.between(1, 99));
      parts.push_back({task.numbers.back(), std::to_string(task.numbers.back())});
    }
    bool whole = true;
    while (whole && parts.size() > 1) {  // joins two random parts until one is left
      const auto take = [&] {
        const auto at = parts.begin() + static_cast<std::ptrdiff_t>(rng.below(parts.size()));
        Part p = std::move(*at);
        parts.erase(at);
        return p;
      };
      const Part a = take(), b = take();
      const char op = "+-*/"[rng.below(4)];
      whole = op == '/' ? b.value != 0 && a.value % b.value == 0 : op != '*' || std::abs(a.value * b.value) <= 999;
      if (!whole) continue;
      const int64_t v = op == '+'   ? a.value + b.value
                        : op == '-' ? a.value - b.value
                        : op == '*' ? a.value * b.value
                                    : a.value / b.value;
      parts.push_back({v, fmt::format("({} {} {})", a.text, op, b.text)});
    }
    if (!whole || parts[0].value < 1 || parts[0].value > 999) continue;
    task.target = static_cast<int>(parts[0].value);
    task.solution = parts[0].text.substr(1, parts[0].text.size() - 2);
    return task;
  }
}

std::optional<Countdown> parse_countdown(std::string_view numbers, std::string_view target) {
  const auto whole = [](std::string_view s) -> std::optional<int> {
    s.remove_prefix(std::min(s.find_first_not_of(" \t["), s.size()));
    const size_t last = s.find_last_not_of(" \t]");
    s = s.substr(0, last == std::string_view::npos ? 0 : last + 1);
    int v = 0;
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), v);
    if (s.empty() || error != std::errc() || end != s.data() + s.size()) return std::nullopt;
    return v;
  };
  Countdown task;
  for (;;) {
    const size_t comma = numbers.find(',');
    const auto n = whole(numbers.substr(0, comma));
    if (!n || task.numbers.size() == 32) return std::nullopt;
    task.numbers.push_back(*n);
    if (comma == std::string_view::npos) break;
    numbers.remove_prefix(comma + 1);
  }
  const auto t = whole(target);
  if (!t) return std::nullopt;
  task.target = *t;
  return task;
}

Example countdown_example(const Countdown& task) {
  std::string numbers;
  for (const int n : task.numbers) numbers += (numbers.empty() ? "" : ", ") + std::to_string(n);
  Example e;
  e.messages.push_back(
      {"user", fmt::format("Reach {} with the numbers {}. Use each number exactly once, with +, -, * and / and "
                           "parentheses. Think step by step, then give one expression between <answer> and </answer>, "
                           "for example <answer>(1 + 2) * 3</answer>.",
                           task.target, numbers)});
  e.answer = Json{{"target", task.target}, {"numbers", task.numbers}}.dump();
  e.solution = task.solution;
  e.data_source = "countdown";
  return e;
}

void write_countdown(const std::string& path, size_t rows, uint64_t seed) {
  make_folder(std::filesystem::path(path).parent_path());
  Rng rng(seed);
  std::unordered_set<std::string> seen;
  std::vector<Json> out;
  while (out.size() < rows) {
    const Countdown task = draw_countdown(rng, rng.between(3, 4));
    const Example e = countdown_example(task);
    if (!seen.insert(e.answer).second) continue;
    out.push_back({{"data_source", e.data_source},
                   {"prompt", Json::array({{{"role", "user"}, {"content", e.messages[0].content}}})},
                   {"reward_model", {{"style", "rule"}, {"ground_truth", Json::parse(e.answer)}}},
                   {"extra_info", {{"index", out.size()}, {"solution", task.solution}}}});
  }
  write_lines(path, out);
}

}  // namespace dapo
