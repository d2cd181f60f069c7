// Collectives between the ranks of a group, with an implementation for one rank. HostComm (core/host_comm.h) is that for
// memory of the host.
//
// Every rank calls the same collectives in the same order with the same shapes; where they do not, all throw an Error
// that names the rank that is out of step. A sum is defined to the bit: x0 + x1 + x2 + ..., in the order of the ranks,
// in the type of the tensor; so it repeats from run to run, and all ranks hold the same bits. Sums of bf16 do not exist:
// activations are gathered, and added by a kernel.
#pragma once

#include <cstdint>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace dapo {

/// An error that all ranks throw alike (Comm::agree): one of them need print it.
class AgreedError final : public Error {
 public:
  AgreedError(int code, const std::string& message, bool named = true) : Error(code, message), named_(named) {}
  /// Whether the message says which rank it comes from.
  bool named() const { return named_; }

 private:
  bool named_;
};

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// What errors call a rank of this group: its number in the whole run.
  virtual int world_rank(int rank) const { return rank; }
  /// Whether Backend::replayable may record its collectives: not where they go through the host.
  virtual bool recordable() const { return true; }
  /// t = sum over ranks, in rank order (f32, f64, i32, i64).
  virtual void all_reduce_sum(const Tensor& t) = 0;
  /// t = max over ranks (f32, f64, i32, i64); NaN if any is.
  virtual void all_reduce_max(const Tensor& t) = 0;
  /// out[size, n] = every rank's in[n], by rank. `in` may be row rank() of `out`.
  virtual void all_gather(const Tensor& out, const Tensor& in) = 0;
  /// out[n] = row rank() of the sum over ranks, in rank order, of in[size, n] (types of all_reduce_sum). `out` may be row
  /// rank() of `in`.
  virtual void reduce_scatter(const Tensor& out, const Tensor& in) = 0;
  /// out[r, n] = row rank() of rank r's in[size, n]: a transposition. Not in place.
  virtual void all_to_all(const Tensor& out, const Tensor& in) = 0;
  virtual void broadcast(const Tensor& t, int root) = 0;
  /// One message from this rank to another, which receives it with the same shape. May wait for the receiver.
  virtual void send(const Tensor& t, int to) = 0;
  virtual void recv(const Tensor& t, int from) = 0;
  virtual void barrier() = 0;
  /// Calls wait(), which waits for collectives of this group that run beside (Backend::beside): the rank is seen there.
  virtual void wait_for_others(const std::function<void()>& wait) { wait(); }
  /// Bytes that this rank has sent to the others of its group, or, where a ring sends them on, as many as that sends.
  virtual uint64_t sent() const { return sent_; }

  /// Bytes of the host, of any lengths, by rank.
  virtual std::vector<std::string> all_gather_bytes(std::string_view bytes) = 0;
  /// The root's bytes; what other ranks pass is ignored.
  virtual std::string broadcast_bytes(std::string bytes, int root) = 0;
  /// Every rank passes its error, or none. If any rank has one, all throw the same: the lowest such rank's, with its exit
  /// code and, unless all ranks say the same or it is `named` already, "rank N: " before its text. Call it where ranks
  /// may fail apart, before the next collective.
  void agree(const std::optional<Error>& error = std::nullopt, bool named = false);
  /// work(), then agree() on what it threw: returns its result only if no rank failed. For work without collectives of
  /// this group, or with the same ones whether it fails or not.
  template <class Work>
  auto together(Work&& work) {
    if (size() == 1) return work();
    using Result = decltype(work());
    std::optional<Error> error;
    bool named = false;
    std::conditional_t<std::is_void_v<Result>, int, std::optional<Result>> result{};
    try {
      if constexpr (std::is_void_v<Result>)
        work();
      else
        result.emplace(work());
    } catch (const AgreedError& e) {  // of a smaller group
      error = e, named = e.named();
    } catch (const Error& e) {
      error = e;
    } catch (const std::bad_alloc&) {
      error = Error(kExitResources, "out of memory");
    }
    agree(error, named);
    if constexpr (!std::is_void_v<Result>) return std::move(*result);
  }

 protected:
  /// Each of the others gets, or passes on, this many bytes of this rank.
  void count_sent(size_t bytes_each) { sent_ += bytes_each * static_cast<uint64_t>(size() - 1); }
  void count_message(size_t bytes) { sent_ += bytes; }

 private:
  uint64_t sent_ = 0;
};

/// A group of one rank: every collective is a no-op, or a copy.
class SingleComm final : public Comm {
 public:
  using Copy = void (*)(void* context, const Tensor& to, const Tensor& from);
  /// `copy` moves bytes on the device that the tensors live on (out-of-place collectives of one rank are copies).
  SingleComm(Copy copy, void* context) : copy_(copy), context_(context) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce_sum(const Tensor&) override {}
  void all_reduce_max(const Tensor&) override {}
  void all_gather(const Tensor& out, const Tensor& in) override { move(out, in); }
  void reduce_scatter(const Tensor& out, const Tensor& in) override { move(out, in); }
  void all_to_all(const Tensor& out, const Tensor& in) override { move(out, in); }
  void broadcast(const Tensor&, int root) override { CHECK_EQ(root, 0); }
  void send(const Tensor&, int to) override { no_other(to); }
  void recv(const Tensor&, int from) override { no_other(from); }
  void barrier() override {}
  std::vector<std::string> all_gather_bytes(std::string_view bytes) override { return {std::string(bytes)}; }
  std::string broadcast_bytes(std::string bytes, int root) override {
    CHECK_EQ(root, 0);
    return bytes;
  }

 private:
  void move(const Tensor& out, const Tensor& in) {
    CHECK_EQ(out.bytes(), in.bytes());
    if (out.data != in.data) copy_(context_, out, in);
  }
  [[noreturn]] static void no_other(int rank) {
    fail(kExitInternal, "a group of one rank has no rank {} to exchange messages with", rank);
  }
  Copy copy_;
  void* context_;
};

}  // namespace dapo
