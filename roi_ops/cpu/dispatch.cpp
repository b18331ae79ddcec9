// Choice of the kernels for the processor at hand.
#include <cstring>
#include <initializer_list>

#include "call.h"

namespace roi {

extern const Kernels baseline_kernels;
#if defined(ROI_HAS_X86_KERNELS)
extern const Kernels avx2_kernels, avx512_kernels;
#endif

const Kernels* named_kernels(const char* name) {
#if defined(ROI_HAS_X86_KERNELS)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && std::strcmp(name, "avx512") == 0) return &avx512_kernels;
  if (avx2 && std::strcmp(name, "avx2") == 0) return &avx2_kernels;
#endif
  return std::strcmp(name, "baseline") == 0 ? &baseline_kernels : nullptr;
}

const Kernels* best_kernels() {
  static const Kernels* best = [] {
    for (const char* name : {"avx512", "avx2"}) {
      if (const Kernels* kernels = named_kernels(name)) return kernels;
    }
    return named_kernels("baseline");
  }();
  return best;
}

}  // namespace roi
