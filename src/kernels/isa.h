#pragma once
// Which instruction set the kernels run on.

#include <span>
#include <string_view>

namespace dspark {

/// Nested: a CPU that has one has those before it.
enum class Isa {
  kPortable,
  kAvx2,
  kAvx512Vnni,  // AVX-512 F/BW/VL/DQ + VNNI (Cascade Lake, Ice Lake)
  kAvx512       // and BF16 (Zen 4, Sapphire Rapids); only attention over a bf16 cache differs
};

/// The best set this CPU and build have, or the one that DSPARK_ISA=portable|avx2|avx512vnni|avx512 forces
/// (ignored here when it names none that runs; the command line refuses it). Decided on first use.
Isa active_isa();
const char* isa_name(Isa isa);
/// All sets this machine can run; tests go through them with set_active_isa.
std::span<const Isa> runnable_isas();
/// For tests and benchmarks only. requires: isa in runnable_isas(); no kernel is running; weights packed
/// before stay valid (the packed layout is the same for all sets).
void set_active_isa(Isa isa);

}  // namespace dspark
