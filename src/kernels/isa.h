#pragma once
// Which instruction set the kernels run on.

#include <span>
#include <string_view>

namespace dspark {

enum class Isa {
  kPortable,
  kAvx2,
  kAvx512
};  // kAvx512: AVX-512 F/BW/VL/DQ + VNNI + BF16 (Zen 4, Sapphire Rapids)

/// The best set this CPU and build have, or the one that DSPARK_ISA=portable|avx2|avx512 forces
/// (ignored here when it names none that runs; the command line refuses it). Decided on first use.
Isa active_isa();
const char* isa_name(Isa isa);
/// All sets this machine can run; tests go through them with set_active_isa.
std::span<const Isa> runnable_isas();
/// For tests and benchmarks only. requires: isa in runnable_isas(); no kernel is running; weights packed
/// before stay valid (the packed layout is the same for all sets).
void set_active_isa(Isa isa);

}  // namespace dspark
