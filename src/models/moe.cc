#include "models/moe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/row_math.h"

namespace dspark {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kSmallestSum = 1e-20f;  // DeepSeek adds it before dividing by the sum

// Logits to scores, in place.
void gate_scores(ExpertGating gating, float* scores, int32_t n) {
  if (gating == ExpertGating::kSoftmax) return softmax_row(scores, n);
  for (int32_t e = 0; e < n; ++e) {
    const float x = scores[e];
    if (gating == ExpertGating::kSigmoid) {
      scores[e] = 1.0f / (1.0f + std::exp(-x));
    } else {
      const float softplus = std::max(x, 0.0f) + std::log1p(std::exp(-std::fabs(x)));
      scores[e] = std::sqrt(softplus);
    }
  }
}

// Index of the largest element, the first of equals; NaN never wins against a number.
int32_t first_largest(const float* x, int32_t n) {
  int32_t best = 0;
  for (int32_t i = 1; i < n; ++i) {
    if (x[i] > x[best] || std::isnan(x[best])) best = i;
  }
  return best;
}

// Groups count by the sum of their two best scores; experts of the others become impossible.
void keep_best_groups(const MoeConfig& config, float* choice) {
  if (config.n_groups_used >= config.n_groups) return;
  const int32_t size = config.n_experts / config.n_groups;
  constexpr int32_t kMaxGroups = 256;
  float group_score[kMaxGroups];
  bool kept[kMaxGroups] = {};
  for (int32_t g = 0; g < config.n_groups; ++g) {
    float first = kNever, second = kNever;
    for (int32_t i = 0; i < size; ++i) {
      const float c = choice[g * size + i];
      if (c > first) {
        second = first;
        first = c;
      } else if (c > second) {
        second = c;
      }
    }
    group_score[g] = size > 1 ? first + second : first;
  }
  for (int32_t k = 0; k < config.n_groups_used; ++k) {
    int32_t best = -1;
    for (int32_t g = 0; g < config.n_groups; ++g) {
      if (!kept[g] && (best < 0 || group_score[g] > group_score[best])) best = g;
    }
    kept[best] = true;
  }
  for (int32_t e = 0; e < config.n_experts; ++e) {
    if (!kept[e / size]) choice[e] = kNever;
  }
}

// The n_used best of `choice` (overwritten), ascending ids. Of the impossible ones (-infinity, after NaN in
// the input) each is taken at most once, too.
void choose(const MoeConfig& config, float* choice, int32_t* ids) {
  for (int32_t k = 0; k < config.n_used; ++k) {
    int32_t best = first_largest(choice, config.n_experts);
    if (!(choice[best] > kNever)) {  // nothing possible is left: the lowest unused ids
      best = 0;
      while (std::find(ids, ids + k, best) != ids + k) ++best;
    }
    choice[best] = kNever;
    ids[k] = best;
  }
  std::sort(ids, ids + config.n_used);
}

// out += weight * x.
void add_scaled(float* out, const float* x, float weight, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += weight * x[i];
}

}  // namespace

void clamp_gate_up(float* gate, float* up, int64_t n, float clamp) {
  for (int64_t i = 0; i < n; ++i) gate[i] = std::min(gate[i], clamp);
  for (int64_t i = 0; i < n; ++i) up[i] = std::clamp(up[i], -clamp, clamp);
}

void route_row(const MoeConfig& config, const MoeWeights& weights, float* scores, const int32_t* fixed,
               float* scratch, int32_t* ids, float* row_weights) {
  gate_scores(config.gating, scores, config.n_experts);
  if (fixed != nullptr) {
    std::copy_n(fixed, config.n_used, ids);
    std::sort(ids, ids + config.n_used);
  } else {
    std::copy_n(scores, config.n_experts, scratch);
    for (size_t e = 0; e < weights.choice_bias.size(); ++e) scratch[e] += weights.choice_bias[e];
    keep_best_groups(config, scratch);
    choose(config, scratch, ids);
  }
  float sum = 0.0f;
  for (int32_t k = 0; k < config.n_used; ++k) sum += scores[ids[k]];
  for (int32_t k = 0; k < config.n_used; ++k) {
    float w = scores[ids[k]];
    if (config.renormalise) w /= sum + kSmallestSum;
    w *= config.weight_scale;
    if (!weights.expert_scale.empty()) w *= weights.expert_scale[static_cast<size_t>(ids[k])];
    row_weights[k] = w;
  }
}

bool MoeBlock::grow(const MoeConfig& config, int64_t dim, int64_t n_rows) {
  const int64_t pairs = n_rows * config.n_used;
  const bool ok = scores_.grow(n_rows * 2 * config.n_experts) && weight_.grow(pairs) &&
                  gathered_.grow(pairs * dim) && pair_out_.grow(pairs * dim) &&
                  gate_.grow(pairs * config.expert_dim) && up_.grow(pairs * config.expert_dim) &&
                  shared_gate_.grow(n_rows * config.shared_dim) &&
                  shared_up_.grow(n_rows * config.shared_dim) &&
                  shared_out_.grow(config.shared_dim > 0 ? n_rows * dim : 0);
  if (!ok) return false;
  const auto n_pairs = static_cast<size_t>(pairs);
  if (ids_.size() < n_pairs) ids_.resize(n_pairs);
  if (place_.size() < n_pairs) place_.resize(n_pairs);
  const auto n_experts = static_cast<size_t>(config.n_experts);
  first_place_.resize(n_experts + 1);
  used_.reserve(n_experts);
  group_rows_.reserve(n_experts);
  jobs_.reserve(2 * n_experts);
  return true;
}

void MoeBlock::run(ThreadPool& pool, const MoeConfig& config, const MoeWeights& weights,
                   const MoeArgs& args) {
  if (args.n_rows == 0) return;
  const int64_t dim = weights.router.n_in;
  route(pool, config, weights, args);
  group_rows(config, args.n_rows);
  pool.parallel_for(args.n_rows, [&](int64_t row, int) {
    for (int32_t k = 0; k < config.n_used; ++k) {
      const int64_t to = place_[static_cast<size_t>(row * config.n_used + k)];
      std::memcpy(gathered_.data() + to * dim, args.x + row * dim, static_cast<size_t>(dim) * sizeof(float));
    }
  });
  run_experts(pool, config, weights, args);
  if (config.shared_dim > 0) run_shared(pool, config, weights.shared, args);
  pool.parallel_for(args.n_rows, [&](int64_t row, int) {
    float* out = args.out + row * dim;
    std::fill_n(out, dim, 0.0f);
    for (int32_t k = 0; k < config.n_used; ++k) {
      const int64_t pair = row * config.n_used + k;
      add_scaled(out, pair_out_.data() + place_[static_cast<size_t>(pair)] * dim, weight_.data()[pair], dim);
    }
    if (config.shared_dim > 0) add_row(out, shared_out_.data() + row * dim, dim);
  });
}

void MoeBlock::route(ThreadPool& pool, const MoeConfig& config, const MoeWeights& weights,
                     const MoeArgs& args) {
  const int64_t stride = 2 * int64_t{config.n_experts};
  activations_.assign(pool, args.router_in, args.n_rows, weights.router.n_in, weights.router.n_in,
                      uses_int8_activations(weights.router.kind));
  const MatmulJob job = {&weights.router, scores_.data(), stride, nullptr};
  matmul(pool, {&job, 1}, activations_);
  const bool hashed = !weights.token_experts.empty();
  pool.parallel_for(args.n_rows, [&](int64_t row, int) {
    float* scores = scores_.data() + row * stride;
    const int32_t* fixed = nullptr;
    if (hashed) fixed = weights.token_experts.data() + int64_t{args.tokens[row]} * config.n_used;
    route_row(config, weights, scores, fixed, scores + config.n_experts, ids_.data() + row * config.n_used,
              weight_.data() + row * config.n_used);
  });
}

// Counting sort of the pairs by expert; rows of one expert stay in order.
void MoeBlock::group_rows(const MoeConfig& config, int64_t n_rows) {
  const auto n_pairs = static_cast<size_t>(n_rows * config.n_used);
  std::fill(first_place_.begin(), first_place_.end(), 0);
  for (size_t i = 0; i < n_pairs; ++i) ++first_place_[static_cast<size_t>(ids_[i]) + 1];
  used_.clear();
  group_rows_.clear();
  for (int32_t e = 0; e < config.n_experts; ++e) {
    const int32_t n = first_place_[static_cast<size_t>(e) + 1];
    if (n > 0) {
      used_.push_back(e);
      group_rows_.push_back(n);
    }
    first_place_[static_cast<size_t>(e) + 1] += first_place_[static_cast<size_t>(e)];
  }
  for (size_t i = 0; i < n_pairs; ++i) place_[i] = first_place_[static_cast<size_t>(ids_[i])]++;
}

void MoeBlock::run_experts(ThreadPool& pool, const MoeConfig& config, const MoeWeights& weights,
                           const MoeArgs& args) {
  const int64_t dim = weights.router.n_in;
  const int64_t n_pairs = args.n_rows * config.n_used;
  const auto expert = [&](size_t i) -> const ExpertWeights& {
    return weights.experts[static_cast<size_t>(used_[i])];
  };
  const auto is_int8 = [](const PackedMatrix& w) { return uses_int8_activations(w.kind); };
  bool quantize = false;
  jobs_.clear();
  int64_t begin = 0;
  for (size_t i = 0; i < used_.size(); ++i) {
    const ExpertWeights& w = expert(i);
    quantize = quantize || is_int8(w.gate) || is_int8(w.up);
    jobs_.push_back({&w.gate, begin, group_rows_[i], gate_.data(), config.expert_dim});
    jobs_.push_back({&w.up, begin, group_rows_[i], up_.data(), config.expert_dim});
    begin += group_rows_[i];
  }
  activations_.assign_groups(pool, gathered_.data(), group_rows_, dim, dim, quantize);
  matmul_groups(pool, jobs_, activations_);

  if (config.clamp > 0.0f) {
    pool.parallel_for(n_pairs, [&](int64_t pair, int) {
      clamp_gate_up(gate_.data() + pair * config.expert_dim, up_.data() + pair * config.expert_dim,
                    config.expert_dim, config.clamp);
    });
  }
  gated_activation(pool, gate_.data(), gate_.data(), up_.data(), n_pairs, config.expert_dim, args.activation);

  quantize = false;
  jobs_.clear();
  begin = 0;
  for (size_t i = 0; i < used_.size(); ++i) {
    const PackedMatrix& down = expert(i).down;
    quantize = quantize || is_int8(down);
    jobs_.push_back({&down, begin, group_rows_[i], pair_out_.data(), dim});
    begin += group_rows_[i];
  }
  activations_.assign_groups(pool, gate_.data(), group_rows_, config.expert_dim, config.expert_dim, quantize);
  matmul_groups(pool, jobs_, activations_);
}

void MoeBlock::run_shared(ThreadPool& pool, const MoeConfig& config, const ExpertWeights& shared,
                          const MoeArgs& args) {
  const int64_t dim = shared.gate.n_in;
  const int64_t width = config.shared_dim;
  const MatmulJob in[] = {{&shared.gate, shared_gate_.data(), width, nullptr},
                          {&shared.up, shared_up_.data(), width, nullptr}};
  activations_.assign(pool, args.x, args.n_rows, dim, dim,
                      uses_int8_activations(shared.gate.kind) || uses_int8_activations(shared.up.kind));
  matmul(pool, in, activations_);
  if (config.clamp > 0.0f) {
    clamp_gate_up(shared_gate_.data(), shared_up_.data(), args.n_rows * width, config.clamp);
  }
  gated_activation(pool, shared_gate_.data(), shared_gate_.data(), shared_up_.data(), args.n_rows, width,
                   args.activation);
  const MatmulJob out = {&shared.down, shared_out_.data(), dim, nullptr};
  activations_.assign(pool, shared_gate_.data(), args.n_rows, width, width,
                      uses_int8_activations(shared.down.kind));
  matmul(pool, {&out, 1}, activations_);
}

}  // namespace dspark
