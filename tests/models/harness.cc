#include "models/harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/checkpoint.h"
#include "support/test_paths.h"

namespace dspark::test {
namespace {

namespace fs = std::filesystem;

template <typename T>
std::vector<T> read_tensor(const Checkpoint& file, const std::string& name, DType dtype) {
  const TensorView* tensor = file.find(name);
  EXPECT_TRUE(tensor != nullptr && tensor->dtype == dtype) << name;
  if (tensor == nullptr || tensor->dtype != dtype) return {};
  std::vector<T> values(tensor->n_bytes / sizeof(T));
  std::memcpy(values.data(), tensor->data, values.size() * sizeof(T));
  return values;
}

void sort_by_name(std::vector<GoldenCase>& cases) {
  std::sort(cases.begin(), cases.end(),
            [](const GoldenCase& a, const GoldenCase& b) { return a.name < b.name; });
}

}  // namespace

std::vector<GoldenCase> fixture_cases() {
  std::vector<GoldenCase> cases;
  for (const char* topic : {"models", "moe_models", "v4_models"}) {
    if (!fs::exists(data_dir() / topic)) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(data_dir() / topic)) {
      if (!entry.is_directory()) continue;
      const fs::path folder = entry.path();
      const std::string name = "fixture_" + folder.filename().string();
      const fs::path expected = folder / "expected.safetensors";
      if (fs::exists(folder / "config.json")) cases.push_back({name, folder, expected});
      if (fs::exists(folder / "model.gguf"))
        cases.push_back({name + "_gguf", folder / "model.gguf", expected});
    }
  }
  sort_by_name(cases);
  return cases;
}

std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases = fixture_cases();
  const fs::path golden = golden_dir();
  if (golden.empty()) return cases;
  std::error_code none;  // a set without models is for a test to complain about
  for (const fs::directory_entry& entry : fs::directory_iterator(golden / "models", none)) {
    if (!entry.is_directory()) continue;
    const std::string name = entry.path().filename().string();
    const fs::path expected = entry.path() / "expected.safetensors";
    cases.push_back({name, entry.path(), expected});
    const fs::path gguf = golden / "gguf" / "models" / (name + ".gguf");
    if (fs::exists(gguf)) cases.push_back({name + "_gguf", gguf, expected});
  }
  sort_by_name(cases);
  return cases;
}

std::unique_ptr<TargetModel> open_model(const fs::path& path, ThreadPool& pool, bool float_activations) {
  ModelOptions options;
  options.float_activations = float_activations;
  Result<std::unique_ptr<TargetModel>> model = TargetModel::open(path.string(), pool, options);
  EXPECT_TRUE(model.ok()) << model.status().to_string();
  return model.ok() ? *std::move(model) : nullptr;
}

Session::Session(TargetModel& model, KvDType dtype, int n_sequences, int max_positions) : model_(model) {
  const int pages_each = (max_positions + kKvPageSize - 1) / kKvPageSize;
  Result<KvPool> cache = KvPool::create(dtype, model.kv_shapes(), pages_each * n_sequences);
  EXPECT_TRUE(cache.ok()) << cache.status().to_string();
  cache_ = *std::move(cache);
  pages_.resize(static_cast<size_t>(n_sequences));
  lengths_.resize(static_cast<size_t>(n_sequences));
  for (int page = 0; page < pages_each; ++page) {
    for (int s = 0; s < n_sequences; ++s) {
      pages_[static_cast<size_t>(s)].push_back((pages_each - 1 - page) * n_sequences + s);
    }
  }
}

void Session::share(int from, int to, int n_pages) {
  const auto source = static_cast<size_t>(from), target = static_cast<size_t>(to);
  std::copy_n(pages_[source].begin(), n_pages, pages_[target].begin());
  lengths_[target] = n_pages * kKvPageSize;
}

std::span<const uint8_t> Session::page(int sequence, int index) const {
  const int32_t id = pages_[static_cast<size_t>(sequence)][static_cast<size_t>(index)];
  return {cache_.page_layer(id, 0), cache_.page_bytes};
}

Outputs Session::forward(const std::vector<Part>& parts) {
  batch_.clear();
  for (const Part& part : parts) {
    const auto s = static_cast<size_t>(part.sequence);
    KvRun run;
    run.row_begin = static_cast<int32_t>(batch_.n_rows());
    run.n_rows = static_cast<int32_t>(part.tokens.size());
    run.pos_begin = lengths_[s];
    run.pages = pages_[s];
    batch_.runs.push_back(run);
    for (int32_t token : part.tokens) {
      const auto row = static_cast<int32_t>(batch_.n_rows());
      batch_.tokens.push_back(token);
      batch_.positions.push_back(lengths_[s]++);
      batch_.logit_rows.push_back(row);
      batch_.capture_rows.push_back(row);
    }
  }
  const ForwardResult result = model_.forward(batch_, cache_);
  EXPECT_FALSE(result.out_of_memory);
  return {{result.logits.begin(), result.logits.end()},
          {result.final_norm.begin(), result.final_norm.end()},
          {result.captured.begin(), result.captured.end()}};
}

std::vector<ExpectedSequence> read_expected(const fs::path& file) {
  Result<Checkpoint> checkpoint = Checkpoint::open(file.string());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  std::vector<ExpectedSequence> sequences;
  if (!checkpoint.ok()) return sequences;
  for (int i = 0;; ++i) {
    const std::string prefix = "seq" + std::to_string(i) + ".";
    if (checkpoint->find(prefix + "input_ids") == nullptr) break;
    ExpectedSequence seq;
    seq.input_ids = read_tensor<int32_t>(*checkpoint, prefix + "input_ids", DType::kI32);
    seq.logits = read_tensor<float>(*checkpoint, prefix + "logits", DType::kF32);
    seq.hidden = read_tensor<float>(*checkpoint, prefix + "hidden", DType::kF32);
    seq.final_norm = read_tensor<float>(*checkpoint, prefix + "final_norm", DType::kF32);
    seq.greedy_ids = read_tensor<int32_t>(*checkpoint, prefix + "greedy_ids", DType::kI32);
    seq.greedy_margin = read_tensor<float>(*checkpoint, prefix + "greedy_margin", DType::kF32);
    sequences.push_back(std::move(seq));
  }
  EXPECT_FALSE(sequences.empty()) << file;
  return sequences;
}

int32_t argmax(const float* values, size_t n) {
  return static_cast<int32_t>(std::max_element(values, values + n) - values);
}

float max_abs(const float* values, size_t n) {
  float largest = 0.0f;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(values[i]));
  return largest;
}

float max_abs_diff(const float* a, const float* b, size_t n) {
  float largest = 0.0f;
  for (size_t i = 0; i < n; ++i) {
    const float diff = std::fabs(a[i] - b[i]);
    if (!(diff <= largest)) largest = diff;  // a NaN wins and stays
    if (std::isnan(diff)) return diff;
  }
  return largest;
}

}  // namespace dspark::test
