// What a group of ranks must do, over threads, MPI and NCCL alike: each function is called by all ranks, and
// returns "" or what this rank found wrong. Tensors are memory of the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/grid.h"

namespace dapo {

/// Values of many magnitudes, so that another order of a sum shows in its bits.
template <class T>
std::vector<T> rank_values(int rank, int64_t n) {
  std::vector<T> x(n);
  for (int64_t i = 0; i < n; ++i) {
    uint64_t bits = (static_cast<uint64_t>(rank) << 40 | static_cast<uint64_t>(i)) * 0x9E3779B97F4A7C15u;
    bits ^= bits >> 29;
    if constexpr (std::is_floating_point_v<T>)
      x[i] = static_cast<T>((static_cast<double>(bits >> 11) / 9007199254740992.0 - 0.5) * (1 << bits % 13));
    else
      x[i] = static_cast<T>(bits % 2001) - 1000;
  }
  return x;
}

template <class T>
Tensor tensor(std::vector<T>& x) {
  return Tensor::of(std::span<T>(x));
}

template <class T>
std::vector<T> ordered_sum(int ranks, int64_t n) {
  std::vector<T> sum = rank_values<T>(0, n);
  for (int r = 1; r < ranks; ++r) {
    const std::vector<T> x = rank_values<T>(r, n);
    for (int64_t i = 0; i < n; ++i) sum[i] += x[i];
  }
  return sum;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline const std::vector<int64_t> kCommSizes = {0, 1, 2, 3, 7, 64, 1000, 4096, 5003, 70001};

template <class T>
std::string wrong_all_reduce(Comm& comm, int64_t n) {
  std::vector<T> x = rank_values<T>(comm.rank(), n);
  comm.all_reduce_sum(tensor(x));
  return same_bits(x, ordered_sum<T>(comm.size(), n)) ? "" : fmt::format("all_reduce_sum of {}", n);
}

template <class T>
std::string wrong_reduce_scatter(Comm& comm, int64_t n) {
  const int size = comm.size(), me = comm.rank();
  const std::vector<T> sum = ordered_sum<T>(size, n * size);
  std::vector<T> in = rank_values<T>(me, n * size), out(n);
  const std::vector<T> row(sum.begin() + me * n, sum.begin() + (me + 1) * n);
  comm.reduce_scatter(tensor(out), tensor(in));
  if (!same_bits(out, row)) return fmt::format("reduce_scatter of {}", n);
  comm.reduce_scatter(Tensor::of(std::span<T>(in).subspan(me * n, n)), tensor(in));
  return std::equal(row.begin(), row.end(), in.begin() + me * n) ? "" : fmt::format("reduce_scatter of {} in place", n);
}

template <class T>
std::string wrong_sums_of(Comm& comm, int64_t n) {
  const int size = comm.size(), me = comm.rank();
  for (const std::string& wrong : {wrong_all_reduce<T>(comm, n), wrong_reduce_scatter<T>(comm, n)})
    if (!wrong.empty()) return fmt::format("{} {}", wrong, dtype_name(dtype_of<T>::value));
  std::vector<T> most = rank_values<T>(0, n), mine = rank_values<T>(me, n);
  for (int r = 1; r < size; ++r) {
    const std::vector<T> other = rank_values<T>(r, n);
    for (int64_t i = 0; i < n; ++i) most[i] = std::max(most[i], other[i]);
  }
  comm.all_reduce_max(tensor(mine));
  return same_bits(mine, most) ? "" : fmt::format("all_reduce_max of {} {}", n, dtype_name(dtype_of<T>::value));
}

inline std::string wrong_sums(Comm& comm, const std::vector<int64_t>& lengths = kCommSizes) {
  for (const int64_t n : lengths) {
    std::string wrong = wrong_sums_of<float>(comm, n);
    if (wrong.empty()) wrong = wrong_sums_of<double>(comm, n);
    if (wrong.empty()) wrong = wrong_sums_of<int32_t>(comm, n);
    if (wrong.empty()) wrong = wrong_sums_of<int64_t>(comm, n);
    if (!wrong.empty()) return wrong;
  }
  std::vector<float> x{comm.rank() == comm.size() - 1 ? std::numeric_limits<float>::quiet_NaN() : 1.0f, 2.0f};
  comm.all_reduce_max(tensor(x));
  if (x[0] == x[0] || x[1] != 2.0f) return "all_reduce_max of NaN";
  if (lengths != kCommSizes) return "";
  constexpr int64_t kChunk = (8 << 20) / sizeof(double);  // of HostComm; and a rest that the ranks do not divide
  for (const std::string& wrong : {wrong_all_reduce<double>(comm, kChunk + 12347),
                                   wrong_reduce_scatter<double>(comm, kChunk / comm.size() + 1237)})
    if (!wrong.empty()) return wrong;
  return "";
}

template <class T>
std::string wrong_moves(Comm& comm, int64_t n) {
  const int size = comm.size(), me = comm.rank();
  const auto name = [&](const char* op) { return fmt::format("{} of {} {}", op, n, dtype_name(dtype_of<T>::value)); };
  std::vector<T> all, in = rank_values<T>(me, n), out(n * size);
  for (int r = 0; r < size; ++r) {
    const std::vector<T> x = rank_values<T>(r, n);
    all.insert(all.end(), x.begin(), x.end());
  }
  comm.all_gather(tensor(out), tensor(in));
  if (!same_bits(out, all)) return name("all_gather");
  std::vector<T> place(n * size);
  std::copy(in.begin(), in.end(), place.begin() + me * n);
  comm.all_gather(tensor(place), Tensor::of(std::span<T>(place).subspan(me * n, n)));
  if (!same_bits(place, all)) return name("all_gather in place");
  std::vector<T> want;
  for (int r = 0; r < size; ++r) {
    const std::vector<T> from = rank_values<T>(r, n * size);
    want.insert(want.end(), from.begin() + me * n, from.begin() + (me + 1) * n);
  }
  std::vector<T> whole = rank_values<T>(me, n * size);
  comm.all_to_all(tensor(out), tensor(whole));
  if (!same_bits(out, want)) return name("all_to_all");
  for (int root = 0; root < size; ++root) {
    std::vector<T> x = rank_values<T>(me, n);
    comm.broadcast(tensor(x), root);
    if (!same_bits(x, rank_values<T>(root, n))) return name("broadcast");
  }
  if (size > 1) {  // a ring: even ranks send first
    std::vector<T> x = rank_values<T>(me, n), got(n);
    const int next = (me + 1) % size, before = (me + size - 1) % size;
    if (me % 2 == 0 && me != size - 1) comm.send(tensor(x), next);
    comm.recv(tensor(got), before);
    if (me % 2 == 1 || me == size - 1) comm.send(tensor(x), next);
    if (!same_bits(got, rank_values<T>(before, n))) return name("send and recv");
  }
  return "";
}

inline std::string wrong_collectives(Comm& comm, const std::vector<int64_t>& lengths = kCommSizes) {
  for (const int64_t n : lengths) {
    std::string wrong = wrong_moves<float>(comm, n);
    if (wrong.empty()) wrong = wrong_moves<int64_t>(comm, n);
    if (wrong.empty()) wrong = wrong_moves<int16_t>(comm, n);
    if (wrong.empty()) wrong = wrong_moves<uint8_t>(comm, n);
    if (!wrong.empty()) return wrong;
    comm.barrier();
  }
  const auto text = [](int rank) { return std::string(rank * 3, static_cast<char>('a' + rank)) + '\0'; };
  const std::vector<std::string> texts = comm.all_gather_bytes(text(comm.rank()));
  for (int r = 0; r < comm.size(); ++r)
    if (std::ssize(texts) != comm.size() || texts[r] != text(r)) return "all_gather_bytes";
  for (const std::string& none : comm.all_gather_bytes(""))
    if (!none.empty()) return "all_gather_bytes of nothing";
  for (int root = 0; root < comm.size(); ++root)
    if (comm.broadcast_bytes(text(comm.rank()), root) != text(root)) return "broadcast_bytes";
  return "";
}

/// The text of the Error that f throws; "" if it throws none.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
    return "";
  } catch (const Error& e) {
    return fmt::format("{}: {}", e.code(), e.what());
  }
}

/// The last rank calls something else, of several kinds; every rank must throw the same text, which names it.
inline std::string wrong_mismatches(Comm& comm) {
  const bool odd = comm.rank() == comm.size() - 1;
  std::vector<float> x(12), y(12 * comm.size());
  std::vector<int32_t> other(12);
  const Tensor t = tensor(x);
  const std::vector<std::string> errors = {
      error_of([&] { odd ? comm.barrier() : comm.all_reduce_sum(t); }),
      error_of([&] { odd ? comm.all_gather(tensor(y), t) : comm.all_reduce_sum(t); }),
      error_of([&] { comm.all_reduce_sum(odd ? t.rows(0, 11) : t); }),
      error_of([&] { comm.all_reduce_max(odd ? tensor(other) : t); }),
      error_of([&] { comm.broadcast(t, odd ? 1 : 0); }),
  };
  const std::string last = fmt::format("rank {} calls ", comm.size() - 1), first = "rank 0 calls ";
  const std::vector<std::vector<std::string>> parts = {{"barrier", "all_reduce_sum of 12 f32, its call "},
                                                       {"all_gather of 12 f32", "all_reduce_sum of 12 f32"},
                                                       {"all_reduce_sum of 11 f32", "all_reduce_sum of 12 f32"},
                                                       {"all_reduce_max of 12 i32", "all_reduce_max of 12 f32"},
                                                       {"broadcast of 12 f32 with root 1", "with root 0"}};
  for (size_t i = 0; i < errors.size(); ++i) {
    for (const std::string& part :
         {std::string("5: the ranks are out of step: "), last, first, parts[i][0], parts[i][1]})
      if (errors[i].find(part) == std::string::npos) return fmt::format("'{}' lacks '{}'", errors[i], part);
    for (const std::string& theirs : comm.all_gather_bytes(errors[i]))
      if (theirs != errors[i]) return fmt::format("one rank says '{}', another '{}'", theirs, errors[i]);
  }
  return "";
}

inline std::string wrong_agreement(Comm& comm) {
  comm.agree();
  const int last = comm.size() - 1;
  std::string want = "3: the disk is full",
              got = error_of([&] {
                comm.agree(comm.rank() == last ? std::optional(Error(kExitResources, "the disk is full"))
                                               : std::nullopt);
              });
  if (last > 0) want = fmt::format("3: rank {}: the disk is full", last);
  if (got != want) return got;
  got = error_of([&] { comm.agree(Error(kExitUsage, "all fail")); });
  if (got != "2: all fail") return got;
  got = error_of([&] {
    comm.together([&] {
      if (comm.rank() == 0) fail_input("bad row");
    });
  });
  if (got != (last > 0 ? "2: rank 0: bad row" : "2: bad row")) return got;
  return comm.together([&] { return comm.rank() + 1; }) == comm.rank() + 1 ? "" : "together";
}

/// A grid whose tensor groups have `tp` ranks.
inline std::string wrong_grid(const Grid& grid, int tp) {
  Comm& world = grid.world;
  const int me = world.rank(), group = me / tp, last = world.size() - 1;
  if (grid.tensor.size() != tp || grid.data.size() != world.size() / tp || grid.tensor.rank() != me % tp ||
      grid.data.rank() != group || grid.leads() != (me % tp == 0))
    return fmt::format("rank {} is rank {} of {}, and {} of {}", me, grid.tensor.rank(), grid.tensor.size(),
                       grid.data.rank(), grid.data.size());
  for (Comm* part : {&grid.tensor, &grid.data}) {
    // As many calls as rank and group say: the parts count apart.
    for (int i = 0; part == &grid.tensor && i < group; ++i) part->barrier();
    for (const std::string& wrong : {wrong_collectives(*part), wrong_sums(*part, {0, 1, 7, 5003})})
      if (!wrong.empty()) return wrong;
  }
  for (int t = 0; tp > 1 && t < tp; ++t)
    if (grid.tensor.world_rank(t) != group * tp + t) return "the world rank of a tensor rank";
  for (int d = 0; grid.data.size() > 1 && d < grid.data.size(); ++d)
    if (grid.data.world_rank(d) != d * tp + me % tp) return "the world rank of a data rank";
  // An error that a tensor group has agreed on keeps its rank's name in the world.
  const std::string got = error_of([&] {
    world.together([&] {
      grid.tensor.together([&] {
        if (me == last) fail_input("bad row");
      });
    });
  });
  if (got != (last > 0 ? fmt::format("2: rank {}: bad row", last) : "2: bad row")) return got;
  if (tp == 1) return "";
  const std::string step = error_of([&] { me == last ? grid.tensor.barrier() : grid.tensor.agree(); });
  const bool concerned = group == last / tp;
  return (step.find(fmt::format("rank {} calls barrier", last)) != std::string::npos) == concerned ? "" : step;
}

}  // namespace dapo
