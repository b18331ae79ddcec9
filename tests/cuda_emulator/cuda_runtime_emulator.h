// The CUDA built-ins that roi_ops/cuda uses, for a host compiler: the device code of the package runs on the CPU.
//
// Threads of a block are real threads, and a barrier is a real barrier: a missing __syncthreads is a data race that
// ThreadSanitizer finds, an index beyond shared memory an overflow that AddressSanitizer finds. With EMULATOR_FIBERS
// they are fibers of one thread instead, which take turns at the barriers: a hundred times faster, and as fast on a
// busy machine. Blocks run one after another. Shared memory is filled with NaNs before each block, so that no kernel
// can count on zeros.
#pragma once

#if defined(EMULATOR_FIBERS)
#include <setjmp.h>
#include <ucontext.h>
#else
#include <pthread.h>
#endif

#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#define ROI_EMULATOR 1
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};

#if defined(EMULATOR_FIBERS)
inline dim3 threadIdx, blockIdx;
#else
inline thread_local dim3 threadIdx, blockIdx;
#endif
inline dim3 blockDim, gridDim;

namespace emulator {

#if defined(EMULATOR_FIBERS)
// Fibers begin by swapcontext and then change places by _setjmp and _longjmp, which make no system calls.
struct Fibers {
  struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::vector<unsigned char> stack;
    bool begun = false, done = false;
  };
  std::vector<Fiber> fibers;
  ucontext_t home;
  unsigned current = 0, left = 0;
  unsigned waiting = 0;  // turns since a fiber last came to a barrier, went on from one or ended
  std::function<void(unsigned)> work;
};

inline Fibers* fibers = nullptr;

// Go to the next fiber that is not done; returns when this one's turn comes again. Not inlined: _setjmp in a thousand
// places takes the compiler minutes.
__attribute__((noinline)) inline void yield() {
  Fibers& all = *fibers;
  if (!all.fibers[all.current].done && _setjmp(all.fibers[all.current].place)) {
    threadIdx.x = all.current;
    return;
  }
  if (all.left == 0) setcontext(&all.home);
  do {
    all.current = (all.current + 1) % all.fibers.size();
  } while (all.fibers[all.current].done);
  Fibers::Fiber& next = all.fibers[all.current];
  threadIdx.x = all.current;
  if (next.begun) _longjmp(next.place, 1);
  next.begun = true;
  setcontext(&next.context);
}

inline void fiber_main() {
  Fibers& all = *fibers;
  const unsigned mine = all.current;
  all.work(mine);
  all.fibers[mine].done = true;
  all.waiting = 0;
  --all.left;
  yield();
}

inline void run_all(unsigned threads, std::function<void(unsigned)> work) {
  static Fibers all;  // kept, so that stacks are made once
  fibers = &all;
  all.work = std::move(work);
  all.fibers.resize(threads);
  for (Fibers::Fiber& fiber : all.fibers) {
    if (fiber.stack.empty()) fiber.stack.resize(1 << 17);
    fiber.begun = fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  all.left = threads;
  all.waiting = 0;
  all.current = 0;
  all.fibers[0].begun = true;
  threadIdx.x = 0;
  swapcontext(&all.home, &all.fibers[0].context);
}

class Barrier {
 public:
  explicit Barrier(unsigned threads) : threads_(threads) {}
  void wait() {
    const unsigned mine = turn_;
    fibers->waiting = 0;
    if (++arrived_ == threads_) {
      arrived_ = 0;
      ++turn_;
    }
    while (mine == turn_) {
      if (++fibers->waiting > 2 * fibers->fibers.size()) {  // every fiber had its turn and waits
        std::fprintf(stderr, "divergent barrier: %u of %u threads came to it, the others wait elsewhere or ended\n",
                     arrived_, threads_);
        std::abort();
      }
      yield();
    }
    fibers->waiting = 0;
  }

 private:
  unsigned threads_, arrived_ = 0, turn_ = 0;
};
#else
// Threads that stay: a sanitizer takes its time to see one come and go.
class Pool {
 public:
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  void run(unsigned threads, const std::function<void(unsigned)>& work) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (unsigned t = threads_.size(); t < threads; ++t) threads_.emplace_back([this, t] { serve(t); });
    work_ = &work;
    wanted_ = left_ = threads;
    ++turn_;
    wake_.notify_all();
    done_.wait(lock, [this] { return left_ == 0; });
  }

 private:
  void serve(unsigned mine) {
    threadIdx.x = mine;
    unsigned long seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || (turn_ != seen && mine < wanted_); });
      if (stop_) return;
      seen = turn_;
      lock.unlock();
      (*work_)(mine);
      lock.lock();
      if (--left_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  const std::function<void(unsigned)>* work_ = nullptr;
  unsigned wanted_ = 0, left_ = 0;
  unsigned long turn_ = 0;
  bool stop_ = false;
};

inline void run_all(unsigned threads, const std::function<void(unsigned)>& work) {
  static Pool pool;
  pool.run(threads, work);
}

class Barrier {
 public:
  explicit Barrier(unsigned threads) { pthread_barrier_init(&barrier_, nullptr, threads); }
  ~Barrier() { pthread_barrier_destroy(&barrier_); }
  void wait() { pthread_barrier_wait(&barrier_); }
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;

 private:
  pthread_barrier_t barrier_;
};
#endif

// What the threads of a warp give each other in a shuffle.
struct Warp {
  Barrier barrier{32};
  uint64_t value[32];
};

struct Block {
  explicit Block(unsigned threads) : barrier(threads), warps(threads / 32) {}
  Barrier barrier;
  std::vector<Warp> warps;
  unsigned char* dynamic_shared = nullptr;
};

inline Block* block = nullptr;

inline unsigned char* dynamic_shared() { return block->dynamic_shared; }

template <class T>
T exchange(T mine, unsigned lane_of_other) {
  static_assert(sizeof(T) <= 8, "shuffles move 8 bytes");
  Warp& warp = block->warps[threadIdx.x / 32];
  std::memcpy(&warp.value[threadIdx.x % 32], &mine, sizeof(T));
  warp.barrier.wait();
  T other;
  std::memcpy(&other, &warp.value[lane_of_other], sizeof(T));
  warp.barrier.wait();
  return other;
}

// Run a kernel: its threads go through all blocks.
inline void run(void (*kernel)(const void*), unsigned grid, unsigned threads, size_t shared, const void* arguments) {
  Block all(threads);
  block = &all;
  gridDim.x = grid;
  blockDim.x = threads;
  // To the byte, so that AddressSanitizer sees what lies beyond; aligned to 16 as on the device.
  void* memory = nullptr;
  if (posix_memalign(&memory, 16, shared + (shared == 0))) std::abort();
  all.dynamic_shared = static_cast<unsigned char*>(memory);
  run_all(threads, [&](unsigned thread) {
    for (unsigned b = 0; b < grid; ++b) {
      if (thread == 0) std::memset(all.dynamic_shared, 0xff, shared);
      all.barrier.wait();
      blockIdx.x = b;
      kernel(arguments);
      all.barrier.wait();
    }
  });
  std::free(all.dynamic_shared);
  block = nullptr;
}

}  // namespace emulator

inline void __syncthreads() { emulator::block->barrier.wait(); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulator::exchange(value, threadIdx.x % 32 ^ unsigned(mask));
}
template <class T>
T __shfl_up_sync(unsigned, T value, int distance) {
  const unsigned lane = threadIdx.x % 32;
  return emulator::exchange(value, lane >= unsigned(distance) ? lane - distance : lane);
}

template <class T>
T __ldg(const T* from) {
  return *from;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }

// ------------------------------------------------------------------------------------------- half types
#define __CUDA_FP16_TYPES_EXIST__ 1
#define __CUDA_BF16_TYPES_EXIST__ 1

namespace emulator {
inline uint32_t bits(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
inline float number(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}
}  // namespace emulator

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) { return emulator::number(uint32_t(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const uint32_t u = emulator::bits(x);
  if (x != x) return {0x7fff};
  return {uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}

struct __half {
  uint16_t bits;
};
inline float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
  float value;
  if (exponent == 31) {
    value = mantissa ? NAN : INFINITY;
  } else if (exponent == 0) {
    value = std::ldexp(float(mantissa), -24);
  } else {
    value = std::ldexp(float(mantissa + 1024), exponent - 25);
  }
  return x.bits & 0x8000 ? -value : value;
}
inline __half __float2half_rn(float x) {
  const uint16_t sign = emulator::bits(x) >> 16 & 0x8000;
  const float size = std::fabs(x);
  if (x != x) return {0x7fff};
  if (size == 0) return {sign};
  if (size >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  int exponent;
  std::frexp(size, &exponent);                                    // size = [0.5, 1) * 2 ** exponent
  const int shift = exponent < -13 ? -24 : exponent - 11;         // of the last bit
  const uint32_t last = uint32_t(std::nearbyint(std::ldexp(size, -shift)));  // ties to even
  // Subnormals count in units of 2 ** -24; a rounding up to 2048 carries into the exponent by itself.
  return {uint16_t(sign | (exponent < -13 ? last : (uint32_t(exponent + 13) << 10) + last))};
}
