#include "model/whole_model.h"

#include <algorithm>
#include <cstring>

namespace dapo {
namespace {

/// Elements [first, first + count) of a tensor of the folder; an end of the work.
struct Wanted {
  int64_t param, part;  ///< in the table of a whole model; param -1: the work has ended
  int64_t first, count;
};

/// What a rank holds of a tensor: rows and columns of it, which lie one after another in its flat buffer.
struct Held {
  int64_t row, rows, column, columns, of_columns;
  int64_t local;  ///< element of the flat buffer

  /// Of these elements, how many come before element `at` of the whole tensor. They keep its order.
  int64_t before(int64_t at) const {
    const int64_t full = std::clamp(at / of_columns - row, int64_t{0}, rows);
    if (full == rows || at / of_columns < row) return full * columns;
    return full * columns + std::clamp(at % of_columns - column, int64_t{0}, columns);
  }
  int64_t element(int64_t index) const { return (row + index / columns) * of_columns + column + index % columns; }
};

/// What a rank gives of a tensor: of rows that several ranks hold, the first of these gives them.
std::vector<Held> held(const ParamTable& own, const ParamTable& whole, const Wanted& wanted) {
  const Param& p = own.at(static_cast<int>(wanted.param));
  const std::string& name = whole.at(static_cast<int>(wanted.param)).parts[static_cast<size_t>(wanted.part)].name;
  std::vector<Held> out;
  for (const ParamPart& part : p.parts)
    if (part.name == name && part.copy == 0)
      out.push_back({part.tensor_row, part.rows, p.column_begin, p.columns, p.tensor_columns,
                     p.offset + part.row_begin * p.columns});
  return out;
}

/// The tables of a model and of the ranks that share it.
struct Tables {
  ParamTable whole;
  std::vector<ParamTable> ranks;
  explicit Tables(const Weights& weights) : whole(parameter_table(weights.config())) {
    const int count = weights.tensor_rank().ranks;
    for (int r = 0; r < count; ++r) ranks.push_back(parameter_table(weights.config(), {count, r}));
  }
};

Tensor as_tensor(Wanted& wanted) {
  return {&wanted, DType::i64, {sizeof wanted / sizeof(int64_t)}};
}

/// This rank's elements of what is wanted, in order.
std::vector<char> own_elements(const Weights& weights, const Tables& tables, const Wanted& wanted) {
  const size_t size = dtype_size(weights.flat().dtype);
  std::vector<char> out;
  for (const Held& h : held(weights.params(), tables.whole, wanted)) {
    const int64_t begin = h.before(wanted.first), end = h.before(wanted.first + wanted.count);
    if (begin == end) continue;
    const size_t at = out.size();
    out.resize(at + static_cast<size_t>(end - begin) * size);
    weights.backend().copy_out_now(out.data() + at, weights.flat().rows(h.local + begin, end - begin));
  }
  return out;
}

/// Puts a rank's elements where they belong. Returns how many there are.
int64_t place(const ParamTable& rank, const Tables& tables, const Wanted& wanted, size_t size, const char* from,
              char* to) {
  int64_t placed = 0;
  for (const Held& h : held(rank, tables.whole, wanted)) {
    const int64_t end = h.before(wanted.first + wanted.count);
    for (int64_t i = h.before(wanted.first); i < end;) {
      const int64_t run = std::min(end - i, h.columns == h.of_columns ? end - i : h.columns - i % h.columns);
      if (from != nullptr)
        std::memcpy(to + static_cast<size_t>(h.element(i) - wanted.first) * size,
                    from + static_cast<size_t>(placed) * size, static_cast<size_t>(run) * size);
      placed += run;
      i += run;
    }
  }
  return placed;
}

/// The piece on the first rank, from all ranks.
void fetch(const Weights& weights, Comm& host, const Tables& tables, Wanted wanted, char* to) {
  host.broadcast(as_tensor(wanted), 0);
  const size_t size = dtype_size(weights.flat().dtype);
  int64_t sum = place(tables.ranks[0], tables, wanted, size, own_elements(weights, tables, wanted).data(), to);
  for (int r = 1; r < host.size(); ++r) {
    const ParamTable& theirs = tables.ranks[static_cast<size_t>(r)];
    const int64_t count = place(theirs, tables, wanted, size, nullptr, nullptr);
    std::vector<char> got(static_cast<size_t>(count) * size);
    if (count > 0) host.recv(Tensor(got.data(), DType::u8, {std::ssize(got)}), r);
    place(theirs, tables, wanted, size, got.data(), to);
    sum += count;
  }
  CHECK_EQ(sum, wanted.count, "the ranks hold other elements than the folder's tensor has");
}

/// Gives pieces to the first rank until it has no more to do.
void answer(const Weights& weights, Comm& host) {
  const Tables tables(weights);
  for (Wanted wanted{};;) {
    host.broadcast(as_tensor(wanted), 0);
    if (wanted.param < 0) return;
    std::vector<char> own = own_elements(weights, tables, wanted);
    if (!own.empty()) host.send(Tensor(own.data(), DType::u8, {std::ssize(own)}), 0);
  }
}

}  // namespace

void lend_parts(const Weights& weights, Comm& host, const std::function<void()>& work) {
  if (host.size() == 1) return work();
  CHECK_EQ(host.size(), weights.tensor_rank().ranks, "the group that shares the model");
  if (host.rank() != 0) return answer(weights, host);
  Wanted end{-1, 0, 0, 0};
  try {
    work();
  } catch (...) {
    host.broadcast(as_tensor(end), 0);
    throw;
  }
  host.broadcast(as_tensor(end), 0);
}

void save_whole(const Weights& weights, Comm& host, const std::string& folder, const ShardFiles& files) {
  if (host.size() == 1) return weights.save(folder, files);
  const Tables tables(weights);
  const DType dtype = weights.flat().dtype;
  std::vector<TensorToWrite> tensors;
  for (size_t i = 0; i < tables.whole.all.size(); ++i) {
    const Param& p = tables.whole.all[i];
    for (size_t k = 0; k < p.parts.size(); ++k)
      tensors.push_back(
          {p.parts[k].name, dtype, p.tensor_shape(p.parts[k]), [&, i, k](uint64_t offset, void* to, size_t bytes) {
             const size_t size = dtype_size(dtype);
             fetch(weights, host, tables,
                   {static_cast<int64_t>(i), static_cast<int64_t>(k), static_cast<int64_t>(offset / size),
                    static_cast<int64_t>(bytes / size)},
                   static_cast<char*>(to));
           }});
  }
  write_safetensors(folder, tensors, files);
  if (files.writer == 0) save_model_config(weights.config(), dtype, folder);
}

}  // namespace dapo
