#pragma once
// Runs a target over token lists, and finds the cases with known answers.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "models/model.h"

namespace dspark::test {

/// A checkpoint whose outputs are known.
struct GoldenCase {
  std::string name;                // "llama_bias_mha.gguf", unique
  std::filesystem::path model;     // folder or .gguf file
  std::filesystem::path expected;  // expected.safetensors
};
inline void PrintTo(const GoldenCase& golden, std::ostream* out) {
  *out << golden.name;
}
/// The fixtures of tests/data/models, and every case of the golden set. None is left out: one that the
/// decoder does not know must fail, not disappear.
std::vector<GoldenCase> golden_cases();
/// The fixtures alone.
std::vector<GoldenCase> fixture_cases();

/// Copies of one forward's results.
struct Outputs {
  std::vector<float> logits;      // (rows, vocab)
  std::vector<float> final_norm;  // (rows, dim)
  std::vector<float> captured;    // (layers, rows, dim)
};

/// Loads `path` and fails the test (returns null) when that does not work.
std::unique_ptr<TargetModel> open_model(const std::filesystem::path& path, ThreadPool& pool,
                                        bool float_activations);

/// Some sequences in one paged cache; the pages of different sequences are interleaved and out of order.
class Session {
 public:
  struct Part {
    int sequence;
    std::vector<int32_t> tokens;
  };
  Session(TargetModel& model, KvDType dtype, int n_sequences, int max_positions);

  /// One pass over all parts (each continues its sequence); logits and captures of all rows.
  Outputs forward(const std::vector<Part>& parts);
  Outputs forward(int sequence, const std::vector<int32_t>& tokens) { return forward({{sequence, tokens}}); }
  int length(int sequence) const { return lengths_[static_cast<size_t>(sequence)]; }
  /// Forgets everything from `length` on.
  void truncate(int sequence, int length) { lengths_[static_cast<size_t>(sequence)] = length; }
  /// Sequence `to` becomes the first `n_pages` full pages of `from`, and reads them where they lie.
  /// requires: `from` is at least that long.
  void share(int from, int to, int n_pages);
  /// All bytes of page `index` of a sequence: K and V of every layer for kKvPageSize positions.
  std::span<const uint8_t> page(int sequence, int index) const;

 private:
  TargetModel& model_;
  KvPool cache_;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<int> lengths_;
  ForwardBatch batch_;
};

/// All sequences of one expected.safetensors.
struct ExpectedSequence {
  std::vector<int32_t> input_ids;
  std::vector<float> logits;
  std::vector<float> hidden;  // (layers + 1, rows, dim)
  std::vector<float> final_norm;
  std::vector<int32_t> greedy_ids;
  std::vector<float> greedy_margin;
};
std::vector<ExpectedSequence> read_expected(const std::filesystem::path& file);

int32_t argmax(const float* values, size_t n);
float max_abs(const float* values, size_t n);
float max_abs_diff(const float* a, const float* b, size_t n);

}  // namespace dspark::test
