#pragma once
// Rows of an Eagle3 or MTP drafter, written out in float64 without any trick: what the fast path is compared
// with where no reference file exists.

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "draft/draft_weights.h"
#include "tensor/quantize.h"

namespace dspark::test {

class ReferencePaired {
 public:
  using Row = std::vector<double>;
  using Rows = std::vector<Row>;
  /// One sequence: keys and values row by row, and the output of the newest row.
  struct Sequence {
    Rows keys, values;
    Row last;
  };

  ReferencePaired(const DraftCheckpoint& draft, const DraftTarget& target) : c_(draft.config) {
    for (const auto& [name, view] : draft.tensors) tensors_[name] = decode(view);
    embedding_ = decode(target.shared.embedding);
    head_ = decode(target.shared.head_tensor);
    target_norm_.assign(target.shared.final_norm.begin(), target.shared.final_norm.end());
    target_eps_ = static_cast<double>(target.norm_eps);
  }

  /// g of one position: `streams` are those of all taps side by side.
  Row carry(const Row& streams) const {
    if (c_.kind == DraftKind::kEagle3) return multiply(tensors_.at("fc.weight"), streams);
    return norm(streams, target_norm_, target_eps_);
  }

  /// The next row of a sequence: g and the token behind it.
  void append(Sequence& s, const Row& g, int32_t token) const {
    const bool eagle = c_.kind == DraftKind::kEagle3;
    Row e = embedding_[static_cast<size_t>(token)];
    for (double& v : e) v *= static_cast<double>(c_.embedding_scale);
    Row residual = g, x;
    if (eagle) {
      x = join(layer_norm(e, "input_layernorm"), layer_norm(g, "hidden_norm"));
    } else {
      const Row pair = join(norm(e, vector("enorm.weight"), eps()), norm(g, vector("hnorm.weight"), eps()));
      residual = multiply(tensors_.at("eh_proj.weight"), pair);
      x = layer_norm(residual, "input_layernorm");
    }
    const auto position = static_cast<double>(s.keys.size());
    Row k = multiply(weight("self_attn.k_proj"), x);
    Row v = c_.k_eq_v ? k : multiply(weight("self_attn.v_proj"), x);
    if (c_.backbone == DraftBackbone::kGemma4) {
      v = head_norm(v, Row(static_cast<size_t>(c_.head_dim), 1.0));
    }
    s.keys.push_back(rotate(head_norm(k, vector("layers.0.self_attn.k_norm.weight")), position));
    s.values.push_back(v);
    const Row q =
        rotate(head_norm(multiply(weight("self_attn.q_proj"), x), vector("layers.0.self_attn.q_norm.weight")),
               position);
    Row branch = multiply(weight("self_attn.o_proj"), attend(s, q));
    if (c_.sandwich_norms) branch = layer_norm(branch, "post_attention_layernorm");
    residual = sum(residual, branch);
    branch = mlp(
        layer_norm(residual, c_.sandwich_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm"));
    if (c_.sandwich_norms) branch = layer_norm(branch, "post_feedforward_layernorm");
    residual = sum(residual, branch);
    if (c_.sandwich_norms) {
      for (double& value : residual) value *= vector("layers.0.layer_scalar")[0];
    }
    s.last = residual;
  }

  Row logits(const Row& h) const {
    Row u = multiply(head_, norm(h, vector("norm.weight"), eps()));
    const auto cap = static_cast<double>(c_.final_softcap);
    for (double& v : u) v = cap > 0.0 ? cap * std::tanh(v / cap) : v;
    return u;
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
      double total = 0.0;
      for (size_t i = 0; i < row.size(); ++i) total += row[i] * x[i];
      y.push_back(total);
    }
    return y;
  }
  static Row join(Row a, const Row& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }
  static Row sum(Row a, const Row& b) {
    for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
  }
  static Row norm(Row x, const Row& weight, double eps) {
    double squares = 0.0;
    for (double v : x) squares += v * v;
    const double factor = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
    for (size_t i = 0; i < x.size(); ++i) x[i] *= factor * weight[i];
    return x;
  }
  double eps() const { return static_cast<double>(c_.norm_eps); }
  const Rows& weight(const std::string& name) const { return tensors_.at("layers.0." + name + ".weight"); }
  /// A vector is one row.
  const Row& vector(const std::string& name) const { return tensors_.at(name)[0]; }
  Row layer_norm(const Row& x, const std::string& name) const {
    return norm(x, vector("layers.0." + name + ".weight"), eps());
  }
  Row head_norm(Row x, const Row& w) const {
    const auto hd = static_cast<size_t>(c_.head_dim);
    for (size_t first = 0; first < x.size(); first += hd) {
      const auto begin = x.begin() + static_cast<std::ptrdiff_t>(first);
      const Row head = norm(Row(begin, begin + static_cast<std::ptrdiff_t>(hd)), w, eps());
      std::copy(head.begin(), head.end(), begin);
    }
    return x;
  }
  Row rotate(Row x, double position) const {
    const auto hd = static_cast<size_t>(c_.head_dim);
    for (size_t first = 0; first < x.size(); first += hd) {
      for (size_t j = 0; j < hd / 2; ++j) {
        const double angle = position * static_cast<double>(c_.rope.inv_freq[j]);
        double& a = x[first + j];
        double& b = x[first + j + hd / 2];
        const double rotated = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = rotated;
      }
    }
    return x;
  }
  Row attend(const Sequence& s, const Row& q) const {
    const auto hd = static_cast<size_t>(c_.head_dim);
    const size_t group = static_cast<size_t>(c_.n_heads / c_.n_kv_heads);
    Row out(q.size());
    for (size_t h = 0; h < static_cast<size_t>(c_.n_heads); ++h) {
      const size_t kv = h / group * hd;
      Row weights;
      double total = 0.0;
      for (const Row& key : s.keys) {
        double score = 0.0;
        for (size_t i = 0; i < hd; ++i) score += q[h * hd + i] * key[kv + i];
        weights.push_back(std::exp(score * static_cast<double>(c_.attention_scale)));
        total += weights.back();
      }
      for (size_t r = 0; r < weights.size(); ++r) {
        for (size_t i = 0; i < hd; ++i) out[h * hd + i] += weights[r] / total * s.values[r][kv + i];
      }
    }
    return out;
  }
  Row mlp(const Row& x) const {
    Row gate = multiply(weight("mlp.gate_proj"), x);
    const Row up = multiply(weight("mlp.up_proj"), x);
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = gate[i];
      const double gelu = 0.5 * g * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (g + 0.044715 * g * g * g)));
      gate[i] = (c_.activation == GateActivation::kSilu ? g / (1.0 + std::exp(-g)) : gelu) * up[i];
    }
    return multiply(weight("mlp.down_proj"), gate);
  }

  DraftConfig c_;
  std::map<std::string, Rows> tensors_;
  Rows embedding_, head_;
  Row target_norm_;
  double target_eps_ = 1e-6;
};

}  // namespace dspark::test
