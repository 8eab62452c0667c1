// Measures what the machine itself can do: reading memory, multiplying int8 and multiplying bf16 (with sums
// in f32; f32 where the CPU has no bf16 products), with all given threads.
//
//   roofs [threads] [seconds] [cached megabytes]
//     prints {"threads":..., "read_gb_per_s":..., "int8_gop_per_s":..., "float_gop_per_s":...,
//     "float_kind":"bf16" or "f32"}, with megabytes above 0 also "cached_read_gb_per_s": a buffer of that
//     size, a share for each thread, read again and again
//
// A stand-alone program: bench/compare_peers.py compiles it with -O3 -march=native and runs it between the
// rounds of a comparison, because a shared machine's roof moves from hour to hour.

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBytesPerThread = size_t{256} << 20;  // far beyond any last-level cache
constexpr int64_t kDotsPerRun = 1 << 22;

// Seconds that the slowest of n_threads needs for work(thread_idx); all start together.
template <typename Work>
double time_together(int n_threads, const Work& work) {
  std::atomic<int> waiting{n_threads};
  std::vector<double> seconds(static_cast<size_t>(n_threads));
  const auto body = [&](int idx) {
    waiting.fetch_sub(1);
    while (waiting.load() > 0) {
    }
    const Clock::time_point start = Clock::now();
    work(idx);
    seconds[static_cast<size_t>(idx)] = std::chrono::duration<double>(Clock::now() - start).count();
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < n_threads; ++i) threads.emplace_back(body, i);
  body(0);
  for (std::thread& thread : threads) thread.join();
  return *std::max_element(seconds.begin(), seconds.end());
}

#if defined(__AVX512F__) && defined(__AVX512VNNI__)

uint64_t read_all(const uint8_t* data, size_t size) {
  __m512i sum[4] = {};
  for (size_t at = 0; at < size; at += 256) {
    for (int i = 0; i < 4; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(data + at + 2048 + i * 64), _MM_HINT_T0);
      sum[i] = _mm512_xor_si512(sum[i], _mm512_load_si512(data + at + i * 64));
    }
  }
  const __m512i all = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(all));
}

constexpr double kOpsPerDot = 64 * 2;  // 64 int8 products and as many additions
constexpr int kChains = 12;            // hides the latency of the instruction

uint64_t multiply(int64_t n_dots) {
  __m512i sum[kChains] = {};
  for (__m512i& s : sum) asm volatile("" : "+v"(s));  // not known to be equal, so no chain is shared
  __m512i a = _mm512_set1_epi8(3);
  const __m512i b = _mm512_set1_epi8(5);
  for (int64_t n = 0; n < n_dots; n += kChains) {
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], a, b);
    asm volatile("" : "+v"(a));  // looks new each time, so no product is taken out of the loop
  }
  for (int i = 1; i < kChains; ++i) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
  return static_cast<uint64_t>(_mm512_reduce_add_epi32(sum[0]));
}

#ifdef __AVX512BF16__
constexpr const char* kFloatKind = "bf16";
constexpr double kFloatOps = 32 * 2;
constexpr int kFloatBits = 0x3f803f80;  // two bf16 ones

__m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
#else
constexpr const char* kFloatKind = "f32";
constexpr double kFloatOps = 16 * 2;
constexpr int kFloatBits = 0x3f800000;  // 1.0f

__m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
  return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
}
#endif

uint64_t multiply_floats(int64_t n_products) {
  __m512 sum[kChains] = {};
  for (__m512& s : sum) asm volatile("" : "+v"(s));
  __m512i a = _mm512_set1_epi32(kFloatBits);
  const __m512i b = a;
  for (int64_t n = 0; n < n_products; n += kChains) {
    for (int i = 0; i < kChains; ++i) sum[i] = multiply_add(sum[i], a, b);
    asm volatile("" : "+v"(a));
  }
  for (int i = 1; i < kChains; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return static_cast<uint64_t>(_mm512_reduce_add_ps(sum[0]));
}

#elif defined(__AVX2__) && defined(__FMA__)

uint64_t read_all(const uint8_t* data, size_t size) {
  __m256i sum[4] = {};
  for (size_t at = 0; at < size; at += 128) {
    for (int i = 0; i < 4; ++i) {
      const auto* line = reinterpret_cast<const __m256i*>(data + at + static_cast<size_t>(i) * 32);
      sum[i] = _mm256_xor_si256(sum[i], _mm256_load_si256(line));
    }
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0));
}

constexpr double kOpsPerDot = 32 * 2;
constexpr int kChains = 6;

uint64_t multiply(int64_t n_dots) {
  __m256i sum[kChains] = {};
  for (__m256i& s : sum) asm volatile("" : "+x"(s));  // not known to be equal, so no chain is shared
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(5);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t n = 0; n < n_dots; n += kChains) {
    for (int i = 0; i < kChains; ++i) {
      sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
    asm volatile("" : "+x"(a));  // looks new each time, so no product is taken out of the loop
  }
  for (int i = 1; i < kChains; ++i) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
  return static_cast<uint64_t>(_mm256_extract_epi64(sum[0], 0));
}

constexpr const char* kFloatKind = "f32";
constexpr double kFloatOps = 8 * 2;
constexpr int kFloatChains = 12;

uint64_t multiply_floats(int64_t n_products) {
  __m256 sum[kFloatChains] = {};
  for (__m256& s : sum) asm volatile("" : "+x"(s));
  __m256 a = _mm256_set1_ps(1);
  const __m256 b = _mm256_set1_ps(1);
  for (int64_t n = 0; n < n_products; n += kFloatChains) {
    for (int i = 0; i < kFloatChains; ++i) sum[i] = _mm256_fmadd_ps(a, b, sum[i]);
    asm volatile("" : "+x"(a));
  }
  for (int i = 1; i < kFloatChains; ++i) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  return static_cast<uint64_t>(_mm256_cvtss_f32(sum[0]));
}

#else
#error "roofs.cc measures x86-64 with AVX2 and FMA or AVX-512 VNNI; compile with -march=native"
#endif

std::atomic<uint64_t> sink{0};  // keeps the results alive

double read_roof(int n_threads, const std::vector<uint8_t*>& memory, double limit_s) {
  double best = 0;
  const Clock::time_point start = Clock::now();
  do {
    const double seconds = time_together(
        n_threads, [&](int idx) { sink += read_all(memory[static_cast<size_t>(idx)], kBytesPerThread); });
    best = std::max(best, static_cast<double>(kBytesPerThread) * n_threads / seconds * 1e-9);
  } while (std::chrono::duration<double>(Clock::now() - start).count() < limit_s);
  return best;
}

/// The whole buffer is read many times over, so it comes from the cache that holds it.
double cached_roof(int n_threads, const std::vector<uint8_t*>& memory, size_t total, double limit_s) {
  constexpr int kRounds = 20;
  const size_t share = std::max<size_t>(4096, total / static_cast<size_t>(n_threads) / 4096 * 4096);
  double best = 0;
  const Clock::time_point start = Clock::now();
  do {
    const double seconds = time_together(n_threads, [&](int idx) {
      for (int i = 0; i < kRounds; ++i) sink += read_all(memory[static_cast<size_t>(idx)], share);
    });
    best = std::max(best, kRounds * static_cast<double>(share) * n_threads / seconds * 1e-9);
  } while (std::chrono::duration<double>(Clock::now() - start).count() < limit_s);
  return best;
}

// 10^9 operations per second of a function that makes as many products as it is told.
double product_roof(int n_threads, double limit_s, uint64_t (*multiply_some)(int64_t),
                    double ops_per_product) {
  double best = 0;
  const Clock::time_point start = Clock::now();
  do {
    const double seconds = time_together(n_threads, [&](int) { sink += multiply_some(kDotsPerRun); });
    best = std::max(best, static_cast<double>(kDotsPerRun) * ops_per_product * n_threads / seconds * 1e-9);
  } while (std::chrono::duration<double>(Clock::now() - start).count() < limit_s);
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int n_threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  const double seconds = argc > 2 ? std::max(0.05, std::atof(argv[2])) : 1.0;
  const double cached_mb = argc > 3 ? std::clamp(std::atof(argv[3]), 0.0, 200.0) : 0.0;
  std::vector<uint8_t*> memory;
  for (int i = 0; i < n_threads; ++i) {
    // One prefetch distance more than is read.
    void* block = std::aligned_alloc(size_t{2} << 20, kBytesPerThread + (size_t{2} << 20));
    if (block == nullptr) {
      std::fprintf(stderr, "roofs: error: out of memory\n");
      return 1;
    }
    madvise(block, kBytesPerThread, MADV_HUGEPAGE);
    std::memset(block, i + 1, kBytesPerThread + (size_t{2} << 20));
    memory.push_back(static_cast<uint8_t*>(block));
  }
  const double read = read_roof(n_threads, memory, seconds / 2);
  const double int8 = product_roof(n_threads, seconds / 4, multiply, kOpsPerDot);
  const double floats = product_roof(n_threads, seconds / 4, multiply_floats, kFloatOps);
  std::printf("{\"threads\":%d,\"read_gb_per_s\":%.1f,\"int8_gop_per_s\":%.0f", n_threads, read, int8);
  std::printf(",\"float_gop_per_s\":%.0f,\"float_kind\":\"%s\"", floats, kFloatKind);
  if (cached_mb > 0) {
    const double cached = cached_roof(n_threads, memory, static_cast<size_t>(cached_mb * 1e6), seconds / 2);
    std::printf(",\"cached_read_gb_per_s\":%.1f", cached);
  }
  std::printf("}\n");
  for (uint8_t* block : memory) std::free(block);
  return sink.load() == 1 ? 3 : 0;
}
