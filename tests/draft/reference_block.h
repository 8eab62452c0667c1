#pragma once
// One round of a block drafter, written out in float64 without any trick: what the fast path is compared with
// where no reference file exists.

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "draft/draft_weights.h"
#include "tensor/quantize.h"

namespace dspark::test {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

struct ReferenceRound {
  Rows hidden, base_logits, step_logits;
  Row confidence_logits;
};

class ReferenceBlock {
 public:
  ReferenceBlock(const DraftCheckpoint& draft, const DraftTarget& target) : draft_(draft), c_(draft_.config) {
    for (const auto& [name, view] : draft.tensors) tensors_[name] = decode(view);
    embedding_ = decode(target.shared.embedding);
    head_ = decode(draft.find("lm_head.weight") != nullptr ? *draft.find("lm_head.weight")
                                                           : target.shared.head_tensor);
    if (draft.find("lm_head.weight") == nullptr && !c_.d2t.empty()) {
      Rows chosen;
      for (int32_t id : c_.d2t) chosen.push_back(head_[static_cast<size_t>(id)]);
      head_ = chosen;
    }
  }

  /// features: (taps, n, dim), positions 0 .. n - 1. drafts: taken as the tokens drafted (target ids).
  ReferenceRound round(const std::vector<float>& features, int32_t n, int32_t anchor,
                       const std::vector<int32_t>& drafts) const {
    const Rows context = context_rows(features, static_cast<size_t>(n));
    Rows h = {embed(anchor)};
    while (h.size() < static_cast<size_t>(c_.block_size)) h.push_back(embed(c_.mask_token_id));
    for (int32_t i = 0; i < c_.n_layers; ++i) layer("layers." + std::to_string(i) + ".", context, h);
    ReferenceRound out;
    for (size_t j = c_.anchor_predicts ? 0 : 1; j < h.size(); ++j) {
      out.hidden.push_back(norm(h[j], "norm.weight"));
      Row u = multiply(head_, out.hidden.back());
      for (double& v : u) {
        if (c_.final_softcap > 0.0f) v = c_.final_softcap * std::tanh(v / c_.final_softcap);
      }
      out.base_logits.push_back(u);
    }
    out.hidden.resize(drafts.size());
    out.base_logits.resize(drafts.size());
    heads(anchor, drafts, out);
    return out;
  }

 private:
  static Rows decode(const TensorView& view) {
    const auto n = static_cast<size_t>(view.row_elements());
    Rows rows(static_cast<size_t>(view.n_rows()), Row(n));
    std::vector<float> floats(n);
    for (size_t r = 0; r < rows.size(); ++r) {
      decode_row(view.dtype, view.data + r * view.row_bytes(), floats.data(), view.row_elements());
      for (size_t i = 0; i < n; ++i) rows[r][i] = static_cast<double>(floats[i]);
    }
    return rows;
  }
  static Row multiply(const Rows& w, const Row& x) {
    Row y;
    for (const Row& row : w) {
      double sum = 0.0;
      for (size_t i = 0; i < row.size(); ++i) sum += row[i] * x[i];
      y.push_back(sum);
    }
    return y;
  }
  Row linear(const std::string& name, const Row& x) const {
    Row y = multiply(tensors_.at(name + ".weight"), x);
    if (const auto bias = tensors_.find(name + ".bias"); bias != tensors_.end()) {
      for (size_t i = 0; i < y.size(); ++i) y[i] += bias->second[0][i];
    }
    return y;
  }
  void norm_in_place(double* x, size_t n, const Row* weight) const {
    double square = 0.0;
    for (size_t i = 0; i < n; ++i) square += x[i] * x[i];
    const double scale = 1.0 / std::sqrt(square / static_cast<double>(n) + static_cast<double>(c_.norm_eps));
    for (size_t i = 0; i < n; ++i) x[i] *= scale * (weight != nullptr ? (*weight)[i] : 1.0);
  }
  Row norm(Row x, const std::string& name) const {
    norm_in_place(x.data(), x.size(), &tensors_.at(name)[0]);
    return x;
  }
  Row embed(int32_t token) const {
    Row row = embedding_[static_cast<size_t>(token)];
    for (double& v : row) v *= static_cast<double>(c_.embedding_scale);
    return row;
  }
  Rows context_rows(const std::vector<float>& features, size_t n) const {
    const auto dim = static_cast<size_t>(c_.dim);
    Rows rows;
    for (size_t r = 0; r < n; ++r) {
      Row x;
      for (size_t tap = 0; tap < c_.taps.size(); ++tap) {
        for (size_t i = 0; i < dim; ++i) x.push_back(static_cast<double>(features[(tap * n + r) * dim + i]));
      }
      rows.push_back(norm(linear("fc", x), "hidden_norm.weight"));
    }
    return rows;
  }
  // q, k or v of one row: heads normed and rotated.
  Row project(const std::string& prefix, char which, const Row& x, size_t position) const {
    const bool from_key = which == 'v' && c_.k_eq_v;
    Row y = linear(prefix + "self_attn." + (from_key ? 'k' : which) + "_proj", x);
    const auto head_dim = static_cast<size_t>(c_.head_dim), half = head_dim / 2;
    const std::string norm_name = prefix + "self_attn." + which + "_norm.weight";
    for (size_t at = 0; at < y.size(); at += head_dim) {
      if (which == 'v') {
        if (c_.backbone == DraftBackbone::kGemma4) norm_in_place(&y[at], head_dim, nullptr);
        continue;
      }
      if (c_.qk_norm) norm_in_place(&y[at], head_dim, &tensors_.at(norm_name)[0]);
      for (size_t j = 0; j < half; ++j) {
        const double angle = static_cast<double>(position) * static_cast<double>(c_.rope.inv_freq[j]);
        const double a = y[at + j], b = y[at + j + half];
        y[at + j] = a * std::cos(angle) - b * std::sin(angle);
        y[at + j + half] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
    return y;
  }
  bool sees(size_t slot, size_t position, size_t n) const {
    if (position >= n) return !c_.causal || position <= n + slot;
    return c_.window == 0 || position + static_cast<size_t>(c_.window) >= n;
  }
  Row attend(const std::string& prefix, const Rows& keys, const Rows& values, const Row& x, size_t slot,
             size_t n) const {
    const Row q = project(prefix, 'q', x, n + slot);
    const auto head_dim = static_cast<size_t>(c_.head_dim);
    const auto group = static_cast<size_t>(c_.n_heads / c_.n_kv_heads);
    Row out(q.size(), 0.0);
    for (size_t head = 0; head < static_cast<size_t>(c_.n_heads); ++head) {
      const size_t from = head / group * head_dim;
      double sum = 0.0;
      for (size_t s = 0; s < keys.size(); ++s) {
        if (!sees(slot, s, n)) continue;
        double score = 0.0;
        for (size_t i = 0; i < head_dim; ++i) score += q[head * head_dim + i] * keys[s][from + i];
        const double weight = std::exp(score * static_cast<double>(c_.attention_scale));
        sum += weight;
        for (size_t i = 0; i < head_dim; ++i) out[head * head_dim + i] += weight * values[s][from + i];
      }
      for (size_t i = 0; i < head_dim; ++i) out[head * head_dim + i] /= sum;
    }
    return linear(prefix + "self_attn.o_proj", out);
  }
  Row mlp(const std::string& prefix, const Row& x) const {
    Row gate = linear(prefix + "mlp.gate_proj", x);
    const Row up = linear(prefix + "mlp.up_proj", x);
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = gate[i];
      const double inner = std::sqrt(2.0 / M_PI) * (g + 0.044715 * g * g * g);
      gate[i] = up[i] * (c_.activation == GateActivation::kSilu ? g * sigmoid(g)
                                                                : 0.5 * g * (1.0 + std::tanh(inner)));
    }
    return linear(prefix + "mlp.down_proj", gate);
  }
  void layer(const std::string& prefix, const Rows& context, Rows& h) const {
    const size_t n = context.size();
    Rows inputs, keys, values;
    for (const Row& row : h) inputs.push_back(norm(row, prefix + "input_layernorm.weight"));
    for (size_t s = 0; s < n + h.size(); ++s) {
      const Row& x = s < n ? context[s] : inputs[s - n];
      keys.push_back(project(prefix, 'k', x, s));
      values.push_back(project(prefix, 'v', x, s));
    }
    const auto add = [](Row& x, const Row& y) {
      for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
    };
    for (size_t slot = 0; slot < h.size(); ++slot) {
      Row attended = attend(prefix, keys, values, inputs[slot], slot, n);
      if (!c_.sandwich_norms) {
        add(h[slot], attended);
        add(h[slot], mlp(prefix, norm(h[slot], prefix + "post_attention_layernorm.weight")));
        continue;
      }
      add(h[slot], norm(attended, prefix + "post_attention_layernorm.weight"));
      const Row out = mlp(prefix, norm(h[slot], prefix + "pre_feedforward_layernorm.weight"));
      add(h[slot], norm(out, prefix + "post_feedforward_layernorm.weight"));
      for (double& v : h[slot]) v *= tensors_.at(prefix + "layer_scalar")[0][0];
    }
  }
  static double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
  static Row join(std::initializer_list<const Row*> parts) {
    Row all;
    for (const Row* part : parts) all.insert(all.end(), part->begin(), part->end());
    return all;
  }
  void heads(int32_t anchor, const std::vector<int32_t>& drafts, ReferenceRound& out) const {
    const auto rank = static_cast<size_t>(c_.markov_rank);
    Row state(rank, 0.0);
    int32_t previous = anchor;
    for (size_t k = 0; k < drafts.size(); ++k) {
      const Row& h = out.hidden[k];
      Row z = out.base_logits[k], e;
      if (c_.head != SequentialHead::kNone) {
        e = tensors_.at("markov_head.markov_w1.weight")[static_cast<size_t>(previous)];
        Row latent = e;
        if (c_.head == SequentialHead::kGated) {
          const Row gate = linear("markov_head.gate_proj", join({&h, &e}));
          for (size_t i = 0; i < rank; ++i) latent[i] = sigmoid(gate[i]) * e[i];
        } else if (c_.head == SequentialHead::kRnn) {
          const Row y = linear("markov_head.joint_proj", join({&state, &e, &h}));
          for (size_t i = 0; i < rank; ++i) {
            const double keep = sigmoid(y[i]);
            state[i] = keep * state[i] + (1.0 - keep) * std::tanh(y[rank + i]);
            latent[i] = std::tanh(y[2 * rank + i]);
          }
        }
        const Row bias = multiply(tensors_.at("markov_head.markov_w2.weight"), latent);
        for (size_t v = 0; v < z.size(); ++v) z[v] += bias[v];
      }
      if (c_.confidence) {
        const Row input = c_.confidence_with_markov ? join({&h, &e}) : h;
        out.confidence_logits.push_back(linear("confidence_head.proj", input)[0]);
      }
      out.step_logits.push_back(z);
      previous = drafts[k];
    }
  }

  const DraftCheckpoint draft_;
  const DraftConfig& c_;
  std::map<std::string, Rows> tensors_;
  Rows embedding_, head_;
};

}  // namespace dspark::test
