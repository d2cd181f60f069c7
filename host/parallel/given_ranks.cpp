#include "host/parallel/given_ranks.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "core/check.h"

namespace dapo {
namespace {

struct Launcher {
  const char *by, *size, *rank;
};
// SLURM_STEP_NUM_TASKS is set by srun; SLURM_NTASKS also stands in batch scripts.
constexpr std::array kLaunchers = {
    Launcher{"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
    Launcher{"mpirun", "PMI_SIZE", "PMI_RANK"},
    Launcher{"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
};

int number(const char* name, const char* text, int least) {
  int value = -1;
  const char* const end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, value);
  if (error != std::errc() || rest != end || value < least)
    fail_input("environment: {} = {}: expected a number of ranks; unset it unless mpirun or srun set it", name, text);
  return value;
}

}  // namespace

GivenRanks given_ranks(const std::function<const char*(const char*)>& variable) {
  GivenRanks given;
  for (const Launcher& l : kLaunchers) {
    const char* const size = variable(l.size);
    const char* const rank = variable(l.rank);
    if (!size || !rank) continue;
    given.by = l.by;
    given.size = number(l.size, size, 1);
    given.rank = number(l.rank, rank, 0);
    if (given.rank >= given.size) fail_input("environment: {} = {}, but {} = {}", l.rank, rank, l.size, size);
    break;
  }
  return given;
}

GivenRanks given_ranks() {
  return given_ranks([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace dapo
