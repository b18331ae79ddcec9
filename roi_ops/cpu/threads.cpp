#include "threads.h"

#include <system_error>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

namespace roi {
namespace {

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// PyTorch has an OpenMP run-time library with a pool of waiting threads. A second pool would compete with it
// for the processors, so its entry point is looked up among the libraries already loaded. (LLVM's and Intel's
// run times have it too.) The symbol's signature is what compilers emit calls to: it cannot change.
GompParallel find_pool() {
#if defined(__unix__) || defined(__APPLE__)
  if (void* symbol = dlsym(RTLD_DEFAULT, "GOMP_parallel")) return reinterpret_cast<GompParallel>(symbol);
#if defined(RTLD_NOLOAD)
  for (const char* name : {"libgomp.so.1", "libomp.so", "libiomp5.so"}) {
    void* library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    void* symbol = library ? dlsym(library, "GOMP_parallel") : nullptr;
    if (symbol) return reinterpret_cast<GompParallel>(symbol);
  }
#endif
#endif
  return nullptr;
}

void run_threads(int threads, void (*work)(void*), void* context) {
  std::vector<std::thread> others;
  try {
    others.reserve(threads - 1);
    for (int i = 1; i < threads; ++i) others.emplace_back(work, context);
  } catch (const std::exception&) {
    // No more threads to be had: those there are do the work.
  }
  work(context);
  for (std::thread& other : others) other.join();
}

}  // namespace

void run_parallel(int threads, void (*work)(void*), void* context) {
  static const GompParallel pool = find_pool();
  if (threads <= 1) {
    work(context);
  } else if (pool) {
    pool(work, context, unsigned(threads), 0);
  } else {
    run_threads(threads, work, context);
  }
}

}  // namespace roi
