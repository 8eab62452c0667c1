// In steady state a step of the engine takes no memory from the heap.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "draft/test_drafters.h"
#include "engine/engine.h"
#include "engine/fake_model.h"

namespace {
std::atomic<int64_t> n_allocations{0};
}

// Not inlined: the compiler would take malloc and delete for a mismatched pair.
__attribute__((noinline)) void* operator new(size_t size) {
  ++n_allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* memory) noexcept {
  std::free(memory);
}
__attribute__((noinline)) void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace dspark {
namespace {

/// Drafts without memory of their own: the anchor's successors in id order, sometimes right.
class CountingDrafter final : public Drafter {
 public:
  std::string_view name() const override { return "counting"; }
  int32_t max_block() const override { return 6; }
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override {
    for (size_t i = 0; i < requests.size(); ++i) {
      out.n_tokens[i] = requests[i].max_tokens;
      for (int32_t j = 0; j < requests[i].max_tokens; ++j) {
        out.row(i)[static_cast<size_t>(j)] = (requests[i].anchor + j + 1) % 40;
      }
    }
    return ok_status();
  }
  void commit(std::span<const CommitEvent>) override {}
  void release(int32_t) override {}
};

TEST(EngineAllocations, SteadyStateStepsAllocateNothing) {
  test::FakeModel model;
  EngineOptions options;
  options.max_sequences = 4;
  options.context_length = 600;
  options.kv_dtype = KvDType::kF32;
  options.policy = VerifyPolicy::fixed(6);
  options.token_bytes = [](int32_t token, std::string& out) { out += static_cast<char>('a' + token % 26); };
  auto engine = Engine::create(model, options, std::make_unique<CountingDrafter>());
  ASSERT_TRUE(engine.ok());
  int64_t n_tokens = 0;
  for (int i = 0; i < 4; ++i) {
    GenerateRequest request;
    request.prompt.assign(static_cast<size_t>(10 + i), i);
    request.sampling.temperature = i == 0 ? 0.0f : 0.9f;
    if (i == 2) request.sampling.top_p = 0.8f;
    if (i == 3) request.sampling.top_k = 10;
    request.stop_strings = {"no such text"};
    request.ignore_eos = true;
    const auto count = [&n_tokens](const StreamUpdate& update) {
      n_tokens += static_cast<int64_t>(update.tokens.size());
    };
    ASSERT_TRUE((*engine)->submit(request, count).ok());
  }
  for (int step = 0; step < 200; ++step) (*engine)->step();  // every buffer reaches its size
  const int64_t before = n_allocations, tokens_before = n_tokens;
  for (int step = 0; step < 200; ++step) (*engine)->step();
  EXPECT_EQ(n_allocations - before, 0);
  EXPECT_GE(n_tokens - tokens_before, 800);
  EXPECT_EQ((*engine)->last_step().decode_sequences, 4);
}

}  // namespace
}  // namespace dspark
