// The functions that g++ calls in .cu files under -fsanitize=thread,alignment,bounds, instead of libtsan and libubsan.
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#include <fmt/format.h>

#include <cstdint>
#include <cstring>

#include "engine.h"
#include "race.h"

using namespace sim::race;
#define CODE __builtin_return_address(0)

namespace {

void aligned_access(void* p, unsigned bytes, unsigned kind, const void* code) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes && sim::block_now)
    sim::block_now->fault("misaligned",
                          fmt::format("{} of {} bytes at address {}", kind == kRead ? "read" : "write", bytes, p),
                          sim::source_line(code));
  access(p, bytes, kind, code);
}

}  // namespace

extern "C" {

void __tsan_init() {
  enabled = true;
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define SIM_ACCESS(n)                            \
  void __tsan_read##n(void* p) {                 \
    aligned_access(p, n, kRead, CODE);           \
  }                                              \
  void __tsan_write##n(void* p) {                \
    aligned_access(p, n, kWrite, CODE);          \
  }                                              \
  void __tsan_unaligned_read##n(void* p) {       \
    access(p, n, kRead, CODE);                   \
  }                                              \
  void __tsan_unaligned_write##n(void* p) {      \
    access(p, n, kWrite, CODE);                  \
  }                                              \
  void __tsan_volatile_read##n(void* p) {        \
    aligned_access(p, n, kRead, CODE);           \
  }                                              \
  void __tsan_volatile_write##n(void* p) {       \
    aligned_access(p, n, kWrite, CODE);          \
  }                                              \
  void __tsan_read##n##_pc(void* p, void* pc) {  \
    aligned_access(p, n, kRead, pc);             \
  }                                              \
  void __tsan_write##n##_pc(void* p, void* pc) { \
    aligned_access(p, n, kWrite, pc);            \
  }
SIM_ACCESS(1)
SIM_ACCESS(2)
SIM_ACCESS(4)
SIM_ACCESS(8)
SIM_ACCESS(16)
#undef SIM_ACCESS
void __tsan_read_range(void* p, std::size_t n) {
  access(p, static_cast<unsigned>(n), kRead, CODE);
}
void __tsan_write_range(void* p, std::size_t n) {
  access(p, static_cast<unsigned>(n), kWrite, CODE);
}

#define SIM_ATOMIC_OP(bits, T, name, builtin)               \
  T __tsan_atomic##bits##_##name(volatile T* p, T v, int) { \
    access(const_cast<T*>(p), sizeof(T), kAtomic, CODE);    \
    return builtin(p, v, __ATOMIC_SEQ_CST);                 \
  }
#define SIM_ATOMICS(bits, T)                                                                       \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                         \
    access(const_cast<T*>(p), sizeof(T), kAtomic, CODE);                                           \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                                      \
    access(const_cast<T*>(p), sizeof(T), kAtomic | kWrite, CODE);                                  \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                      \
  }                                                                                                \
  bool __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* expected, T v, int, int) {  \
    access(const_cast<T*>(p), sizeof(T), kAtomic, CODE);                                           \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                                \
  bool __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* expected, T v, int, int) {    \
    access(const_cast<T*>(p), sizeof(T), kAtomic, CODE);                                           \
    return __atomic_compare_exchange_n(p, expected, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);  \
  }                                                                                                \
  SIM_ATOMIC_OP(bits, T, exchange, __atomic_exchange_n)                                            \
  SIM_ATOMIC_OP(bits, T, fetch_add, __atomic_fetch_add)                                            \
  SIM_ATOMIC_OP(bits, T, fetch_sub, __atomic_fetch_sub)                                            \
  SIM_ATOMIC_OP(bits, T, fetch_and, __atomic_fetch_and)                                            \
  SIM_ATOMIC_OP(bits, T, fetch_or, __atomic_fetch_or)                                              \
  SIM_ATOMIC_OP(bits, T, fetch_xor, __atomic_fetch_xor)
SIM_ATOMICS(8, std::uint8_t)
SIM_ATOMICS(16, std::uint16_t)
SIM_ATOMICS(32, std::uint32_t)
SIM_ATOMICS(64, std::uint64_t)
#undef SIM_ATOMICS
#undef SIM_ATOMIC_OP
void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
void __tsan_atomic_signal_fence(int) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// ---- what -fsanitize=alignment,bounds calls; the layouts are the compiler's

struct SourceLocation {
  const char* file;
  std::uint32_t line, column;
};
struct TypeDescriptor {
  std::uint16_t kind, info;
  char name[1];
};
struct TypeMismatch {
  SourceLocation where;
  const TypeDescriptor* type;
  unsigned char log_alignment, check;
};
struct OutOfBounds {
  SourceLocation where;
  const TypeDescriptor *array, *index;
};

static void report(const char* kind, const std::string& text, const SourceLocation& where) {
  const std::string line = fmt::format("{}:{}", where.file ? where.file : "?", where.line);
  if (sim::block_now) sim::block_now->fault(kind, text, line);
  std::fprintf(stderr, "sim: %s on the host at %s: %s\n", kind, line.c_str(), text.c_str());
}
void __ubsan_handle_type_mismatch_v1(TypeMismatch* m, void* p) {
  const std::uintptr_t alignment = std::uintptr_t{1} << m->log_alignment;
  if (!p)
    report("bad address", fmt::format("access to a null {}", m->type->name), m->where);
  else
    report("misaligned", fmt::format("address {} of {} is not a multiple of {}", p, m->type->name, alignment),
           m->where);
}
void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch* m, void* p) {
  __ubsan_handle_type_mismatch_v1(m, p);
}
void __ubsan_handle_out_of_bounds(OutOfBounds* o, void* index) {
  report("out of bounds",
         fmt::format("index {} of {}", static_cast<long>(reinterpret_cast<std::intptr_t>(index)), o->array->name),
         o->where);
}
void __ubsan_handle_out_of_bounds_abort(OutOfBounds* o, void* index) {
  __ubsan_handle_out_of_bounds(o, index);
}

}  // extern "C"
#endif
