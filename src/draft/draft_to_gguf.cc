#include "draft/draft_to_gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <filesystem>
#include <utility>

#include "draft/draft_tensors.h"
#include "formats/hf_tokenizer.h"
#include "models/config.h"
#include "models/rope_scaling.h"
#include "models/tensor_table.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr int64_t kZeroRank = 8;
constexpr float kStandsStill = 1e30f;       // divisor of a pair that does not rotate
constexpr double kSameUpToRounding = 0.15;  // relative error that quantising an equal matrix may make
constexpr int64_t kComparedRows = 512;      // of an embedding or head, spread over all

const char* architecture(DraftKind kind) {
  if (kind == DraftKind::kEagle3) return "dspark-eagle3";
  if (kind == DraftKind::kMtp) return "dspark-mtp";
  return "dflash";
}

/// The same matrix: root mean square difference over that of `a`, on some of the rows.
bool same_matrix(const TensorView& a, const TensorView& b) {
  if (a.shape != b.shape || a.shape.size() != 2 || !can_decode(a.dtype) || !can_decode(b.dtype)) return false;
  const int64_t n = a.row_elements();
  std::vector<float> row_a(static_cast<size_t>(n));
  std::vector<float> row_b(static_cast<size_t>(n));
  const int64_t step = std::max<int64_t>(1, a.n_rows() / kComparedRows);
  double power = 0.0, error = 0.0;
  for (int64_t r = 0; r < a.n_rows(); r += step) {
    const auto at = static_cast<size_t>(r);
    decode_row(a.dtype, a.data + at * a.row_bytes(), row_a.data(), n);
    decode_row(b.dtype, b.data + at * b.row_bytes(), row_b.data(), n);
    for (size_t i = 0; i < row_a.size(); ++i) {
      const double x = row_a[i], y = row_b[i];
      power += x * x;
      error += (x - y) * (x - y);
    }
  }
  return error <= kSameUpToRounding * kSameUpToRounding * power;
}

/// Embedding and head of the target by their role.
struct TargetMatrices {
  const TensorView* embedding = nullptr;
  const TensorView* head = nullptr;  // the embedding of a target that ties them
};

class GgufExport {
 public:
  GgufExport(const DraftCheckpoint& draft, const DraftGgufOptions& options)
      : draft_(draft), options_(options) {}

  Status plan() {
    if (options_.standalone && options_.target == nullptr) {
      return invalid_argument("a standalone drafter takes head rows from its target: name the target");
    }
    if (options_.target != nullptr) {
      DSPARK_ASSIGN_OR_RETURN(const ModelConfig target, read_model_config(*options_.target));
      DSPARK_RETURN_IF_ERROR(check_draft_fits(c_, target));
      const TensorNames names(*options_.target);
      target_.embedding = options_.target->find(names.embedding());
      const TensorView* head = options_.target->find(names.head());
      target_.head = head != nullptr && !target.tied_head ? head : target_.embedding;
    }
    choose_shared();
    for (const DraftTensor& tensor : draft_tensors(c_)) {
      const TensorView* source = draft_.find(tensor.name);
      const bool left_out = tensor.role == DraftTensorRole::kEmbedding ? !keep_embedding_ : !keep_head_;
      const bool shared = tensor.role == DraftTensorRole::kEmbedding || tensor.role == DraftTensorRole::kHead;
      if (source == nullptr || (shared && left_out)) continue;
      add(tensor.gguf, tensor.shape, *source);
    }
    if (options_.standalone && c_.reduced_vocab() && !keep_head_) DSPARK_RETURN_IF_ERROR(add_head_rows());
    if (c_.kind == DraftKind::kDFlash && c_.anchor_predicts) add_zero_head();
    add_rope_divisors();
    add_d2t();
    note_limits();
    return ok_status();
  }

  Status set_metadata(GgufWriter& writer) const {
    const std::string arch = architecture(c_.kind);
    writer.set_string("general.architecture", arch);
    writer.set_string("general.type", "model");
    writer.set_string("general.name", name());
    const auto key = [&](const char* suffix) { return arch + "." + suffix; };
    const auto set = [&](const char* suffix, int32_t value) {
      writer.set_u32(key(suffix), static_cast<uint32_t>(value));
    };
    set("block_count", c_.n_layers);
    set("context_length", c_.context_length);
    set("embedding_length", c_.dim);
    set("feed_forward_length", c_.ffn_dim);
    set("vocab_size", c_.vocab_size);
    set("attention.head_count", c_.n_heads);
    set("attention.head_count_kv", c_.n_kv_heads);
    set("attention.key_length", c_.head_dim);
    set("attention.value_length", c_.head_dim);
    writer.set_f32(key("attention.layer_norm_rms_epsilon"), c_.norm_eps);
    writer.set_f32(key("rope.freq_base"), static_cast<float>(c_.rope_theta));
    set_extras(writer, key);
    set_block(writer, key);
    DSPARK_RETURN_IF_ERROR(set_tokenizer(writer));
    const bool block = c_.kind == DraftKind::kDSpark || c_.kind == DraftKind::kDFlash;
    if (block) writer.set_u32("tokenizer.ggml.mask_token_id", static_cast<uint32_t>(c_.mask_token_id));
    return ok_status();
  }

  const std::vector<GgufTensorPlan>& plans() const { return plans_; }
  std::vector<std::string> take_notes() { return std::move(notes_); }

 private:
  std::string name() const {
    const std::filesystem::path path(draft_.file->path());
    const auto stored = draft_.file->meta_string("general.name");
    if (stored) return *stored;
    return (path.has_filename() ? path : path.parent_path()).filename().string();
  }

  /// Neither embedding nor head, or both, or (what is unambiguous too) a head alone.
  void choose_shared() {
    const TensorView* embedding = draft_.find("embed_tokens.weight");
    const TensorView* head = draft_.find("lm_head.weight");
    keep_head_ = head != nullptr;
    keep_embedding_ = embedding != nullptr;
    if (keep_head_ && !c_.reduced_vocab() && target_.head != nullptr && same_matrix(*head, *target_.head)) {
      keep_head_ = false;
      notes_.push_back("output.weight is left out: it is the target's head");
    }
    if (keep_embedding_ && target_.embedding != nullptr && same_matrix(*embedding, *target_.embedding)) {
      keep_embedding_ = false;
      notes_.push_back("token_embd.weight is left out: it is the target's embedding");
    } else if (keep_embedding_ && !keep_head_) {
      keep_embedding_ = false;
      notes_.push_back(
          "token_embd.weight is left out: without output.weight some engines would use it as the head; the "
          "target's embedding takes its place");
    }
  }

  void add(const std::string& gguf_name, std::vector<int64_t> shape, const TensorView& source) {
    GgufTensorPlan plan;
    plan.name = gguf_name;
    plan.shape = std::move(shape);
    plan.sources = {&source};
    plans_.push_back(std::move(plan));
  }

  /// A tensor whose bytes this object owns.
  void add_computed(const std::string& gguf_name, DType dtype, std::vector<int64_t> shape,
                    std::vector<uint8_t> bytes) {
    bytes_.push_back(std::move(bytes));
    TensorView view{gguf_name, dtype, shape, bytes_.back().data(), bytes_.back().size()};
    views_.push_back(std::move(view));
    add(gguf_name, std::move(shape), views_.back());
  }

  Status add_head_rows() {
    const TensorView* head = target_.head;
    if (head == nullptr || head->shape != std::vector<int64_t>{c_.vocab_size, c_.dim}) {
      return invalid_argument(fmt::format("{}: no head of {} rows and {} columns to take rows from",
                                          options_.target->path(), c_.vocab_size, c_.dim));
    }
    std::vector<uint8_t> rows;
    rows.reserve(c_.d2t.size() * head->row_bytes());
    for (const int32_t id : c_.d2t) {
      const uint8_t* row = head->data + static_cast<size_t>(id) * head->row_bytes();
      rows.insert(rows.end(), row, row + head->row_bytes());
    }
    add_computed("output.weight", head->dtype, {c_.draft_vocab_size, c_.dim}, std::move(rows));
    has_gathered_head_ = true;
    return ok_status();
  }

  void add_zero_head() {
    for (const auto& [zero_name, rows] :
         {std::pair("markov_w1.weight", c_.vocab_size), std::pair("markov_w2.weight", c_.draft_vocab_size)}) {
      const size_t n_bytes = static_cast<size_t>(rows) * dtype_row_bytes(DType::kF16, kZeroRank);
      add_computed(zero_name, DType::kF16, {rows, kZeroRank}, std::vector<uint8_t>(n_bytes));
    }
  }

  /// Every rotary embedding that is not the plain one of its base becomes a list of divisors.
  void add_rope_divisors() {
    RopeParams params;
    params.theta = static_cast<float>(c_.rope_theta);
    const RopeTable plain = make_rope_table(params, c_.head_dim);
    if (plain.inv_freq == c_.rope.inv_freq) return;
    std::vector<float> divisors;
    for (size_t j = 0; j < c_.rope.inv_freq.size(); ++j) {
      const float wanted = c_.rope.inv_freq[j];
      const double base = std::pow(params.theta, -2.0 * static_cast<double>(j) / c_.head_dim);
      const bool same = wanted == plain.inv_freq[j];
      divisors.push_back(same ? 1.0f : wanted == 0.0f ? kStandsStill : static_cast<float>(base / wanted));
    }
    std::vector<uint8_t> bytes(divisors.size() * sizeof(float));
    std::memcpy(bytes.data(), divisors.data(), bytes.size());
    add_computed("rope_freqs.weight", DType::kF32, {c_.head_dim / 2}, std::move(bytes));
  }

  void add_d2t() {
    if (c_.d2t.empty()) return;
    const std::vector<int64_t> ids(c_.d2t.begin(), c_.d2t.end());
    std::vector<uint8_t> bytes(ids.size() * sizeof(int64_t));
    std::memcpy(bytes.data(), ids.data(), bytes.size());
    add_computed("d2t", DType::kI64, {c_.draft_vocab_size}, std::move(bytes));
  }

  void note_limits() {
    const auto note = [&](const char* what) {
      notes_.push_back(fmt::format("llama.cpp cannot use this file as it is meant: {}", what));
    };
    if (c_.kind == DraftKind::kEagle3 || c_.kind == DraftKind::kMtp) {
      return note("the architecture is one of dspark's own");
    }
    if (c_.head == SequentialHead::kGated || c_.head == SequentialHead::kRnn)
      note("it knows vanilla heads only");
    if (!c_.qk_norm) note("it needs q and k norms");
    if (c_.confidence && !c_.confidence_with_markov) note("its confidence head reads the Markov row too");
    if (c_.final_softcap > 0.0f) note("it does not apply the soft cap");
    if (c_.reduced_vocab() && !keep_head_ && !has_gathered_head_) {
      note("a reduced vocabulary needs output.weight (--standalone)");
    }
  }

  template <typename Key>
  void set_extras(GgufWriter& writer, const Key& key) const {
    const bool gemma = c_.backbone == DraftBackbone::kGemma4;
    const float usual_scale = 1.0f / std::sqrt(static_cast<float>(c_.head_dim));
    if (gemma || c_.attention_scale != usual_scale)
      writer.set_f32(key("attention.scale"), c_.attention_scale);
    if (gemma || c_.embedding_scale != 1.0f) writer.set_f32(key("embedding_scale"), c_.embedding_scale);
    if (c_.activation == GateActivation::kGeluTanh) {
      writer.set_string(key("hidden_activation"), "gelu_pytorch_tanh");
    } else if (gemma) {
      writer.set_string(key("hidden_activation"), "silu");
    }
    if (c_.final_softcap > 0.0f) writer.set_f32(key("final_logit_softcapping"), c_.final_softcap);
    if (c_.rope.attention_factor != 1.0f) {
      writer.set_f32(key("rope.scaling.attn_factor"), c_.rope.attention_factor);
    }
    if (c_.causal) writer.set_bool(key("attention.causal"), true);
    if (c_.window > 0) {
      writer.set_u32(key("attention.sliding_window"), static_cast<uint32_t>(c_.window));
      writer.set_bools(key("attention.sliding_window_pattern"),
                       std::vector<bool>(static_cast<size_t>(c_.n_layers), true));
    }
  }

  template <typename Key>
  void set_block(GgufWriter& writer, const Key& key) const {
    // Taps have the numbering of this key: 0 = embeddings, l + 1 = after layer l.
    writer.set_i32s(key("target_layers"), c_.taps);
    if (c_.kind != DraftKind::kMtp) writer.set_u32(key("block_size"), static_cast<uint32_t>(c_.block_size));
    if (c_.kind == DraftKind::kDSpark || c_.kind == DraftKind::kDFlash) {
      writer.set_bool(key("sample_from_anchor"), c_.anchor_predicts);
      writer.set_bool(key("has_confidence_head"), c_.confidence);
    }
    if (c_.short_block > 0) {
      writer.set_u32("dspark.short_block_size", static_cast<uint32_t>(c_.short_block));
    }
    if (c_.target_layers > 0) {
      writer.set_u32("dspark.target_layer_count", static_cast<uint32_t>(c_.target_layers));
    }
    if (!c_.target_name.empty()) writer.set_string("dspark.target_name", c_.target_name);
  }

  Status set_tokenizer(GgufWriter& writer) const {
    const Checkpoint& source = options_.target != nullptr ? *options_.target : *draft_.file;
    if (source.format() != Checkpoint::Format::kGguf) {
      std::vector<std::string> notes;  // a drafter needs no tokenizer
      return set_hf_tokenizer(source, c_.vocab_size, writer, notes);
    }
    for (const RawMeta& raw : source.raw_metadata()) {
      if (raw.key.starts_with("tokenizer.")) writer.copy(raw);
    }
    return ok_status();
  }

  const DraftCheckpoint& draft_;
  const DraftConfig& c_ = draft_.config;
  const DraftGgufOptions& options_;
  TargetMatrices target_;
  bool keep_embedding_ = false;
  bool keep_head_ = false;
  bool has_gathered_head_ = false;
  std::vector<GgufTensorPlan> plans_;
  std::deque<std::vector<uint8_t>> bytes_;  // of computed tensors; addresses stay
  std::deque<TensorView> views_;
  std::vector<std::string> notes_;
};

}  // namespace

Result<QuantizeReport> draft_to_gguf(const DraftCheckpoint& draft, const std::string& output,
                                     const DraftGgufOptions& options, ThreadPool& pool,
                                     const QuantizeProgress& progress) {
  GgufExport file(draft, options);
  DSPARK_RETURN_IF_ERROR(file.plan());
  const auto set_metadata = [&](GgufWriter& writer) { return file.set_metadata(writer); };
  DSPARK_ASSIGN_OR_RETURN(QuantizeReport report, quantize_tensors(*draft.file, file.plans(), set_metadata,
                                                                  output, options.types, pool, progress));
  report.notes = file.take_notes();
  return report;
}

}  // namespace dspark
