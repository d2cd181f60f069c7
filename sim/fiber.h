// Stacks that can be left and entered again (Boost.Context), announced to AddressSanitizer.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <memory>
#include <vector>

namespace sim {

/// A stack and where it was left. The first of a worker is its own OS stack.
struct Fiber {
  boost::context::detail::fcontext_t context = nullptr;
  const void* low = nullptr;  ///< lowest address of the stack
  std::size_t size = 0;
  void* top = nullptr;  ///< where a run begins; coloured, so that equal frames do not share cache sets
  void* fake_stack = nullptr;
};

/// The fibers of one OS thread. A switch costs about as much as a few function calls.
class Fibers {
 public:
  Fibers() = default;
  ~Fibers();
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;

  Fiber* running() { return running_; }
  Fiber* home() { return &home_; }
  /// A fiber that calls entry() when first entered; entry never returns, it leaves for good.
  Fiber* start(void (*entry)());
  /// Leaves the running fiber, to be entered again later.
  void enter(Fiber* to) { jump(to, false); }
  /// Leaves the running fiber for good; its stack may be taken by the next start().
  [[noreturn]] void leave(Fiber* to);
  /// Takes back every stack, left for good or not (after a fault).
  void reset();

 private:
  void jump(Fiber* to, bool for_good);
  static void trampoline(boost::context::detail::transfer_t from);
  void landed(boost::context::detail::transfer_t from);

  Fiber home_;
  Fiber* running_ = &home_;
  void (*entry_)() = nullptr;
  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> free_;
};

}  // namespace sim
