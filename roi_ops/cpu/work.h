// Memory of a thread, and the sharing out of work among threads.
#pragma once

#include <cstdlib>

#include "call.h"
#include "plan.h"
#include "simd.h"
#include "tables.h"
#include "threads.h"

namespace roi {
namespace {

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// A zeroed array that begins on a cache line; data is null if there was no memory.
template <class T>
struct Buffer {
  T* data = nullptr;

  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(memory_); }

  bool reserve(int64_t count) {
    std::free(memory_);
    memory_ = std::calloc(size_t(count) * sizeof(T) + 64, 1);
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_);
    data = memory_ ? reinterpret_cast<T*>((address + 63) / 64 * 64) : nullptr;
    return memory_ != nullptr;
  }

 private:
  void* memory_ = nullptr;
};

// A block of channels that a kernel handles in one go: VECTORS vectors, or, if PART, some lanes of one.
template <int VECTORS_, bool PART_>
struct Block {
  static constexpr int VECTORS = VECTORS_;
  static constexpr bool PART = PART_;
};

// Cuts `count` channels into blocks of at most MOST vectors: calls go(Block, first channel, lanes).
template <class F, int MOST = F::UNROLL, class Go>
inline void in_blocks(int64_t count, Go go) {
  int64_t c = 0;
  for (; MOST > 4 && c + MOST * F::N <= count; c += MOST * F::N) go(Block<MOST, false>(), c, F::N);
  for (; c + 4 * F::N <= count; c += 4 * F::N) go(Block<4, false>(), c, F::N);
  for (; c + F::N <= count; c += F::N) go(Block<1, false>(), c, F::N);
  if (c < count) go(Block<1, true>(), c, int(count - c));
}

// Below this many multiply-adds a thread costs more than it saves.
constexpr int64_t WORK_PER_THREAD = 1 << 18;

inline int useful_threads(const Call& call) {
  const int64_t work = call.rois * call.channels * call.pooled_h * call.pooled_w * 8;
  return int(smaller<int64_t>(call.threads, 1 + work / WORK_PER_THREAD));
}

struct PlannedJob {
  const Call& call;
  const Plan& plan;
};

// Calls Worker::run(unit) for every unit 0 <= unit < units, each once, on several threads that take the next
// unit when they have done one. Each thread has a Worker of its own, made from `job`.
template <class Worker, class Job>
Status for_units(const Job& job, int64_t units, int threads) {
  struct Shared {
    const Job& job;
    int64_t units, next;
    int status;
  } shared{job, units, 0, OK};
  const auto work = [](void* context) {
    Shared& s = *static_cast<Shared*>(context);
    Worker worker(s.job);
    if (!worker.ready()) {
      __atomic_store_n(&s.status, int(OUT_OF_MEMORY), __ATOMIC_RELAXED);
      return;
    }
    for (;;) {
      const int64_t unit = __atomic_fetch_add(&s.next, 1, __ATOMIC_RELAXED);
      if (unit >= s.units) break;
      worker.run(unit);
    }
#if defined(ROI_AVX512) || defined(ROI_AVX2)
    _mm_sfence();  // streaming stores are visible to all before the thread says it is done
#endif
  };
  run_parallel(int(smaller<int64_t>(threads, units)), work, &shared);
  return Status(shared.status);
}

// Gradient of a box (image index, x1, y1, x2, y2) from those with respect to its start and extent on the map.
template <class A>
inline void store_box_gradient(A* to, const Roi<A>& roi, A scale, A y_start, A y_extent, A x_start, A x_extent) {
  if (!roi.y.free) y_extent = 0;
  if (!roi.x.free) x_extent = 0;
  to[0] = 0;
  to[1] = scale * (x_start - x_extent);
  to[2] = scale * (y_start - y_extent);
  to[3] = scale * x_extent;
  to[4] = scale * y_extent;
}

// Returns what name<T>(call) returns, T being the storage type of the call.
#define ROI_BY_TYPE(name, call)               \
  switch ((call).type) {                      \
    case FLOAT64: return name<double>(call);  \
    case FLOAT16: return name<Half>(call);    \
    case BFLOAT16: return name<BFloat>(call); \
    default: return name<float>(call);        \
  }

}  // namespace
}  // namespace roi
