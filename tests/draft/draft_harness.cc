#include "draft/draft_harness.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "support/test_paths.h"
#include "tensor/quantize.h"

namespace dspark::test {

namespace fs = std::filesystem;

namespace {

// The reference wrote undefined metrics as a bare NaN, which JSON does not have.
nlohmann::json read_json(const fs::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (size_t at = text.find("NaN"); at != std::string::npos; at = text.find("NaN", at)) {
    text.replace(at, 3, "null");
  }
  return nlohmann::json::parse(text);
}

void add_drafts(const fs::path& root, const std::string& prefix, std::vector<GoldenDraft>& out) {
  for (const fs::directory_entry& entry : fs::directory_iterator(root / "drafts")) {
    const std::string name = entry.path().filename().string();
    if (name.find("eagle3") != std::string::npos) continue;
    if (!fs::exists(entry.path() / "expected.safetensors")) continue;  // whole generations only
    out.push_back({prefix + name, entry.path(), root / "targets" / name.substr(0, name.find('_'))});
  }
}

}  // namespace

std::vector<GoldenDraft> golden_block_drafts() {
  std::vector<GoldenDraft> drafts;
  add_drafts(data_dir() / "drafters", "fixture_", drafts);
  add_drafts(data_dir() / "draft", "fixture_", drafts);
  if (!golden_dir().empty()) add_drafts(golden_dir() / "draft", "", drafts);
  std::sort(drafts.begin(), drafts.end(),
            [](const GoldenDraft& a, const GoldenDraft& b) { return a.name < b.name; });
  return drafts;
}

TestTarget::TestTarget(const fs::path& folder, ThreadPool& pool, bool float_activations) {
  Result<Checkpoint> file = Checkpoint::open(folder.string());
  EXPECT_TRUE(file.ok()) << file.status().to_string();
  file_ = std::move(*file);
  n_layers_ = read_json(folder / "config.json").at("num_hidden_layers").get<int32_t>();
  const TensorView* head = file_.find("lm_head.weight");
  if (head == nullptr) head = file_.find("model.embed_tokens.weight");
  Result<PackedMatrix> packed = pack_matrix(pool, *head, float_activations);
  EXPECT_TRUE(packed.ok());
  head_ = std::move(*packed);
}

DraftTarget TestTarget::view() const {
  DraftTarget target;
  target.shared.embedding = *file_.find("model.embed_tokens.weight");
  const TensorView* head = file_.find("lm_head.weight");
  target.shared.head_tensor = head != nullptr ? *head : target.shared.embedding;
  target.shared.head = &head_;
  target.vocab_size = static_cast<int32_t>(target.shared.embedding.shape[0]);
  target.dim = static_cast<int32_t>(target.shared.embedding.shape[1]);
  target.n_layers = n_layers_;
  return target;
}

ExpectedDraft::ExpectedDraft(const fs::path& folder) {
  Result<Checkpoint> file = Checkpoint::open((folder / "expected.safetensors").string());
  EXPECT_TRUE(file.ok()) << file.status().to_string();
  file_ = std::move(*file);
  const nlohmann::json json = read_json(folder / "expected.json");
  const char* key = json.contains("forced_rounds") ? "forced_rounds" : "rounds";
  for (const nlohmann::json& round : json.at(key)) {
    rounds_.push_back({round.at("n"), round.at("x0"), round.at("drafts").get<std::vector<int32_t>>()});
  }
  for (const char* name : {"tf_target.tokens", "tf_other.tokens", "kept_ids"}) {
    if (json.contains(name)) tokens_.emplace_back(name, json.at(name).get<std::vector<int32_t>>());
  }
}

std::vector<int32_t> ExpectedDraft::tokens(const std::string& key) const {
  for (const auto& [name, tokens] : tokens_) {
    if (name == key) return tokens;
  }
  ADD_FAILURE() << key;
  return {};
}

std::vector<float> ExpectedDraft::floats(const std::string& tensor) const {
  const TensorView* view = file_.find(tensor);
  EXPECT_NE(view, nullptr) << tensor;
  if (view == nullptr) return {};
  std::vector<float> values(static_cast<size_t>(view->n_elements()));
  decode_row(view->dtype, view->data, values.data(), view->n_elements());
  return values;
}

std::vector<float> ExpectedDraft::features(int32_t round_idx, int32_t n_taps, int32_t dim) const {
  const std::vector<float> rows = floats("r" + std::to_string(round_idx) + ".features_in");
  const size_t width = static_cast<size_t>(n_taps) * static_cast<size_t>(dim);
  const size_t n_rows = rows.size() / width;
  std::vector<float> out;
  out.reserve(rows.size());
  for (size_t tap = 0; tap < static_cast<size_t>(n_taps); ++tap) {
    for (size_t r = 0; r < n_rows; ++r) {
      const auto from =
          rows.begin() + static_cast<std::ptrdiff_t>(r * width + tap * static_cast<size_t>(dim));
      out.insert(out.end(), from, from + dim);
    }
  }
  return out;
}

BlockDrafterOptions exact_options() {
  BlockDrafterOptions options;
  options.max_sequences = 4;
  options.context_length = 200;
  options.kv_dtype = KvDType::kF32;
  options.float_activations = true;
  return options;
}

std::unique_ptr<BlockDrafter> load_block_draft(const GoldenDraft& golden, const TestTarget& target,
                                               ThreadPool& pool, const BlockDrafterOptions& options) {
  Result<DraftCheckpoint> draft = open_draft_checkpoint(golden.folder.string());
  EXPECT_TRUE(draft.ok()) << draft.status().to_string();
  if (!draft.ok()) return nullptr;
  Result<std::unique_ptr<BlockDrafter>> drafter =
      BlockDrafter::create(std::move(*draft), target.view(), pool, options);
  EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
  return drafter.ok() ? std::move(*drafter) : nullptr;
}

CommitEvent feature_event(int32_t slot, int32_t position, const std::vector<float>& features, int32_t n_taps,
                          int32_t dim) {
  CommitEvent event;
  event.slot = slot;
  event.feature_position = position;
  event.n_features = static_cast<int32_t>(features.size()) / (n_taps * dim);
  event.features = features.data();
  event.tap_stride = int64_t{event.n_features} * dim;
  event.dim = dim;
  return event;
}

std::vector<float> feature_rows(const std::vector<float>& features, int32_t n_taps, int32_t dim,
                                int32_t first, int32_t n) {
  const auto stride = static_cast<std::ptrdiff_t>(features.size()) / n_taps;
  std::vector<float> out;
  for (int32_t tap = 0; tap < n_taps; ++tap) {
    const auto from = features.begin() + tap * stride + std::ptrdiff_t{first} * dim;
    out.insert(out.end(), from, from + std::ptrdiff_t{n} * dim);
  }
  return out;
}

std::vector<float> join_features(const std::vector<float>& a, const std::vector<float>& b, int32_t n_taps) {
  std::vector<float> out;
  for (int32_t tap = 0; tap < n_taps; ++tap) {
    for (const std::vector<float>* part : {&a, &b}) {
      const auto stride = static_cast<std::ptrdiff_t>(part->size()) / n_taps;
      out.insert(out.end(), part->begin() + tap * stride, part->begin() + (tap + 1) * stride);
    }
  }
  return out;
}

DraftBlock propose_one(Drafter& drafter, int32_t slot, int32_t anchor, int32_t position, int32_t max_tokens,
                       const SamplingParams& sampling, AcceptRule rule) {
  DraftRequest request;
  request.slot = slot;
  request.anchor = anchor;
  request.position = position;
  request.max_tokens = max_tokens;
  request.sampling = &sampling;
  request.rule = rule;
  DraftBlock block;
  block.reset(1, max_tokens);
  const Status status = drafter.propose({&request, 1}, block);
  EXPECT_TRUE(status.ok()) << status.to_string();
  return block;
}

std::vector<float> cached_rows(const KvPool& cache, std::span<const int32_t> pages, int32_t n_rows,
                               int32_t layer, bool values) {
  const KvHeadLayout& layout = cache.head_layout[static_cast<size_t>(layer)];
  const auto head_dim = static_cast<size_t>(layout.head_dim), v_dim = static_cast<size_t>(layout.v_dim);
  std::vector<float> out;
  for (int32_t head = 0; head < cache.layers[static_cast<size_t>(layer)].n_kv_heads; ++head) {
    for (int32_t pos = 0; pos < n_rows; ++pos) {
      const int32_t page = pages[static_cast<size_t>(pos / kKvPageSize)];
      const uint8_t* block = cache.page_layer(page, layer) + static_cast<size_t>(head) * layout.bytes;
      const auto at = static_cast<size_t>(pos % kKvPageSize);
      const auto* k = reinterpret_cast<const float*>(block + at / kKvPanel * layout.k_panel_bytes);
      const auto* v = reinterpret_cast<const float*>(block + layout.v_offset) + at * v_dim;
      for (size_t i = 0; i < head_dim; ++i) out.push_back(values ? v[i] : k[i * kKvPanel + at % kKvPanel]);
    }
  }
  return out;
}

float max_abs_diff(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  if (a.size() != b.size()) return INFINITY;
  float largest = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) {
    const float d = std::fabs(a[i] - b[i]);
    if (!(d <= largest)) largest = d;  // NaN stays
  }
  return largest;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace dspark::test
