// Stacks that can be left and resumed (Boost.Context), with AddressSanitizer informed of each switch.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <memory>
#include <vector>

namespace sim {

/// A stack and where it was left. The first one of an OS thread is its own stack.
struct Fiber {
  boost::context::detail::fcontext_t context = nullptr;
  const void* low = nullptr;  ///< lowest address of the stack
  std::size_t size = 0;
  void* top = nullptr;  ///< where execution begins; coloured, so that equal frames do not share cache sets
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
  /// A fiber that calls entry() when first entered; entry must end with leaving for good, not return.
  Fiber* start(void (*entry)());
  /// Leaves the running fiber, to be entered again later.
  void enter(Fiber* to) { jump(to, false); }
  /// Leaves the running fiber for good; the next start() may reuse its stack.
  [[noreturn]] void leave(Fiber* to);
  /// Reclaims every stack, left for good or not (after a fault).
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
