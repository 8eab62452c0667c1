#include "kernels/isa.h"

#include <atomic>
#include <cstdlib>

namespace dspark {
namespace {

constexpr Isa kAll[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAvx512};

// Sets are nested, so the number of runnable ones says which they are.
size_t count_runnable() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2"))
    return 1;
  const bool vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vnni");
  if (!vnni) return 2;
  return __builtin_cpu_supports("avx512bf16") ? 4 : 3;
#else
  return 1;
#endif
}

Isa choose() {
  const std::span<const Isa> isas = runnable_isas();
  if (const char* forced = std::getenv("DSPARK_ISA")) {
    for (Isa isa : isas) {
      if (std::string_view(forced) == isa_name(isa)) return isa;
    }
  }
  return isas.back();
}

// The process has one CPU, so the choice is process-wide; tests switch it between runs.
std::atomic<Isa>& current() {
  static std::atomic<Isa> isa{choose()};
  return isa;
}

}  // namespace

Isa active_isa() {
  return current().load(std::memory_order_relaxed);
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAvx512:
      return "avx512";
  }
  return "?";
}

std::span<const Isa> runnable_isas() {
  static const size_t n = count_runnable();
  return {kAll, n};
}

void set_active_isa(Isa isa) {
  current().store(isa, std::memory_order_relaxed);
}

}  // namespace dspark
