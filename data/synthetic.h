// Synthetic tasks: chain (the demo) and countdown. Both are pure functions of their seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/random.h"

namespace dapo {

// ---- chain: one-digit additions and subtractions from left to right, modulo 5
// Prompt: a field of fixed width, "2+3-1+4                  \n" (2 to 12
// operations), so that each operation is at a constant distance from where its result is written. A good response
// writes the result after each operation: "=0=4=3\nAnswer: 3". The teachers imitated in the cold start: `steps` (10 %)
// is right and short, `wordy` (20 %) right but long, `sloppy` (30 %) replaces one result in five by a random one,
// `guess` (40 %) answers without intermediate results.

constexpr int kChainMost = 12;  ///< operations at most

struct Chain {
  int start = 0;
  std::vector<std::pair<char, int>> steps;  ///< ('+' or '-', 0..4)
  std::string prompt() const;
  int answer() const;
};

enum class Teacher { kSteps, kWordy, kSloppy, kGuess };
const char* name_of(Teacher t);

Chain draw_chain(Rng& rng);
Teacher draw_teacher(Rng& rng);
std::string respond(Rng& rng, const Chain& c, Teacher t);

struct ChainSizes {
  size_t test = 512, train = 8192, skill = 16384, crowd = 8192;
};

/// Writes test.jsonl, train.jsonl ({"prompt","answer","operations"}), skill.jsonl and crowd.jsonl
/// ({"prompt","response","teacher"}) into `folder`, which is created if absent. No prompt occurs twice across all four.
void write_chain(const std::string& folder, uint64_t seed, const ChainSizes& sizes = {});

// ---- countdown: reach a target with + - * / and each number exactly once

struct Countdown {
  std::vector<int> numbers;
  int target = 0;
  std::string solution;  ///< one expression that reaches it; empty if unknown
};

/// A solvable task: `count` numbers in 1..99, target in 1..999; every intermediate result is an integer.
Countdown draw_countdown(Rng& rng, int count);
/// Parses "30,100,93" and "23"; nothing if either is malformed.
std::optional<Countdown> parse_countdown(std::string_view numbers, std::string_view target);
/// One user message; the answer is the verifier's ground truth, {"target":23,"numbers":[30,100,93]}.
Example countdown_example(const Countdown& task);
/// Writes `rows` tasks of 3 or 4 numbers in verl's schema, no duplicates.
void write_countdown(const std::string& path, size_t rows, uint64_t seed);

}  // namespace dapo
