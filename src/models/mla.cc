#include "models/mla.h"

#include <algorithm>
#include <cstring>

#include "kernels/rows.h"

namespace dspark {
namespace {

constexpr float kLatentEps = 1e-6f;  // of both latent norms, whatever the config says

size_t float_bytes(int64_t n) {
  return static_cast<size_t>(n) * sizeof(float);
}

struct Names {
  std::string q_a, q_a_norm, q, kv_a, kv_norm, kv_b, k_b, v_b;
};

Names names_of(const ModelConfig& config, bool gguf, const std::string& prefix) {
  const bool low_rank = config.mla.q_rank > 0;
  if (gguf) {
    return {prefix + "attn_q_a.weight",
            prefix + "attn_q_a_norm.weight",
            prefix + (low_rank ? "attn_q_b.weight" : "attn_q.weight"),
            prefix + "attn_kv_a_mqa.weight",
            prefix + "attn_kv_a_norm.weight",
            "",
            prefix + "attn_k_b.weight",
            prefix + "attn_v_b.weight"};
  }
  return {prefix + "self_attn.q_a_proj.weight",
          prefix + "self_attn.q_a_layernorm.weight",
          prefix + (low_rank ? "self_attn.q_b_proj.weight" : "self_attn.q_proj.weight"),
          prefix + "self_attn.kv_a_proj_with_mqa.weight",
          prefix + "self_attn.kv_a_layernorm.weight",
          prefix + "self_attn.kv_b_proj.weight",
          "",
          ""};
}

// Rows of the rotary part that starts at stored row `first`: pairs (2j, 2j + 1) become halves.
void add_rope_rows(const ModelConfig& config, int32_t first, std::vector<int32_t>& rows) {
  const int32_t half = config.mla.rope_dim / 2;
  for (int32_t s = 0; s < 2; ++s) {
    for (int32_t j = 0; j < half; ++j) {
      rows.push_back(first + (config.qk_interleaved ? 2 * j + s : s * half + j));
    }
  }
}

std::vector<int32_t> range(int32_t first, int32_t n) {
  std::vector<int32_t> rows(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i) rows[static_cast<size_t>(i)] = first + i;
  return rows;
}

// kv_b [n_heads * (nope + v), kv_rank] -> K_h transposed and V_h.
Status split_kv_b(WeightReader& reader, const ModelConfig& config, const std::string& name,
                  MlaWeights& weights) {
  const MlaConfig& mla = config.mla;
  const std::vector<float> stored = reader.floats(name);
  std::vector<float> part(static_cast<size_t>(mla.kv_rank) *
                          static_cast<size_t>(std::max(mla.nope_dim, mla.v_dim)));
  for (int32_t h = 0; h < config.n_heads; ++h) {
    const float* head = stored.data() + int64_t{h} * (mla.nope_dim + mla.v_dim) * mla.kv_rank;
    for (int64_t i = 0; i < mla.nope_dim; ++i) {
      for (int64_t r = 0; r < mla.kv_rank; ++r) {
        part[static_cast<size_t>(r * mla.nope_dim + i)] = head[i * mla.kv_rank + r];
      }
    }
    const auto k_size = static_cast<size_t>(mla.kv_rank) * static_cast<size_t>(mla.nope_dim);
    DSPARK_ASSIGN_OR_RETURN(weights.k_t.emplace_back(),
                            reader.matrix_of(name, std::span(part).first(k_size), mla.kv_rank, mla.nope_dim));
    const auto v_size = static_cast<size_t>(mla.v_dim) * static_cast<size_t>(mla.kv_rank);
    const float* values = head + int64_t{mla.nope_dim} * mla.kv_rank;
    DSPARK_ASSIGN_OR_RETURN(weights.v.emplace_back(),
                            reader.matrix_of(name, {values, v_size}, mla.v_dim, mla.kv_rank));
  }
  return ok_status();
}

}  // namespace

void expect_mla(TensorFinder& finder, const ModelConfig& config, bool gguf, const std::string& prefix) {
  const MlaConfig& mla = config.mla;
  const Names names = names_of(config, gguf, prefix);
  const int64_t heads = config.n_heads, dim = config.dim;
  if (mla.q_rank > 0) {
    finder.expect(names.q_a, {mla.q_rank, dim});
    finder.expect(names.q_a_norm, {mla.q_rank});
  }
  finder.expect(names.q, {heads * (mla.nope_dim + mla.rope_dim), mla.q_rank > 0 ? mla.q_rank : dim});
  finder.expect(names.kv_a, {mla.kv_rank + mla.rope_dim, dim});
  finder.expect(names.kv_norm, {mla.kv_rank});
  if (gguf) {
    finder.expect(names.k_b, {heads, mla.kv_rank, mla.nope_dim});
    finder.expect(names.v_b, {heads, mla.v_dim, mla.kv_rank});
  } else {
    finder.expect(names.kv_b, {heads * (mla.nope_dim + mla.v_dim), mla.kv_rank});
  }
}

Status load_mla(WeightReader& reader, const ModelConfig& config, bool gguf, const std::string& prefix,
                MlaWeights& weights) {
  const MlaConfig& mla = config.mla;
  const Names names = names_of(config, gguf, prefix);
  if (mla.q_rank > 0) {
    DSPARK_ASSIGN_OR_RETURN(weights.q_a, reader.matrix(names.q_a));
    weights.q_a_norm = reader.floats(names.q_a_norm);
  }
  std::vector<int32_t> nope_rows, rope_rows;
  for (int32_t h = 0; h < config.n_heads; ++h) {
    const int32_t first = h * (mla.nope_dim + mla.rope_dim);
    for (int32_t i = 0; i < mla.nope_dim; ++i) nope_rows.push_back(first + i);
    add_rope_rows(config, first + mla.nope_dim, rope_rows);
  }
  DSPARK_ASSIGN_OR_RETURN(weights.q_nope, reader.matrix(names.q, nope_rows));
  DSPARK_ASSIGN_OR_RETURN(weights.q_rope, reader.matrix(names.q, rope_rows));
  std::vector<int32_t> key_rows;
  add_rope_rows(config, mla.kv_rank, key_rows);
  DSPARK_ASSIGN_OR_RETURN(weights.latent, reader.matrix(names.kv_a, range(0, mla.kv_rank)));
  DSPARK_ASSIGN_OR_RETURN(weights.k_rope, reader.matrix(names.kv_a, key_rows));
  weights.kv_norm = reader.floats(names.kv_norm);
  if (!gguf) return split_kv_b(reader, config, names.kv_b, weights);
  for (int32_t h = 0; h < config.n_heads; ++h) {
    DSPARK_ASSIGN_OR_RETURN(weights.k_t.emplace_back(),
                            reader.matrix_rows(names.k_b, int64_t{h} * mla.kv_rank, mla.kv_rank));
    DSPARK_ASSIGN_OR_RETURN(weights.v.emplace_back(),
                            reader.matrix_rows(names.v_b, int64_t{h} * mla.v_dim, mla.v_dim));
  }
  return ok_status();
}

bool MlaBlock::grow(const ModelConfig& config, int64_t n_rows) {
  const MlaConfig& mla = config.mla;
  const int64_t head_rows = n_rows * config.n_heads;
  const int64_t wide = mla.kv_rank + mla.rope_dim;
  group_rows_.resize(static_cast<size_t>(config.n_heads));
  jobs_.reserve(static_cast<size_t>(config.n_heads));
  return q_latent_.grow(n_rows * mla.q_rank) && q_nope_.grow(head_rows * mla.nope_dim) &&
         q_rope_.grow(head_rows * mla.rope_dim) && latent_.grow(n_rows * mla.kv_rank) &&
         k_rope_.grow(n_rows * mla.rope_dim) && key_.grow(n_rows * wide) && query_.grow(head_rows * wide) &&
         attended_.grow(head_rows * wide) && head_in_.grow(head_rows * std::max(mla.nope_dim, mla.kv_rank)) &&
         head_out_.grow(head_rows * std::max(mla.v_dim, mla.kv_rank));
}

void MlaBlock::run(ThreadPool& pool, const ModelConfig& config, const MlaWeights& weights, KvPool& cache,
                   const MlaArgs& args) {
  const MlaConfig& mla = config.mla;
  const auto n_rows = static_cast<int64_t>(args.positions.size());
  const int64_t heads = config.n_heads;
  const int64_t wide = mla.kv_rank + mla.rope_dim;
  make_queries(pool, config, weights, args);
  make_keys(pool, config, weights, cache, args);

  AttentionArgs attend;
  attend.q = query_.data();
  attend.q_stride = heads * wide;
  attend.out = attended_.data();
  attend.out_stride = heads * wide;
  attend.n_heads = config.n_heads;
  attend.scale = config.attention_scale;
  attention(pool, cache, args.layer, args.runs, attend, scratch_);

  pool.parallel_for(n_rows, [&](int64_t row, int) {
    for (int64_t h = 0; h < heads; ++h) {  // the first kv_rank values; the rest came along with the key
      std::memcpy(head_in_.data() + (h * n_rows + row) * mla.kv_rank,
                  attended_.data() + (row * heads + h) * wide, float_bytes(mla.kv_rank));
    }
  });
  per_head(pool, weights.v, n_rows, head_in_.data());
  pool.parallel_for(n_rows, [&](int64_t row, int) {
    for (int64_t h = 0; h < heads; ++h) {
      std::memcpy(args.out + (row * heads + h) * mla.v_dim, head_out_.data() + (h * n_rows + row) * mla.v_dim,
                  float_bytes(mla.v_dim));
    }
  });
}

// x -> query_: per head [K_h^T q_nope | rotated q_rope].
void MlaBlock::make_queries(ThreadPool& pool, const ModelConfig& config, const MlaWeights& weights,
                            const MlaArgs& args) {
  const MlaConfig& mla = config.mla;
  const auto n_rows = static_cast<int64_t>(args.positions.size());
  const int64_t heads = config.n_heads;
  const float* x = args.x;
  if (mla.q_rank > 0) {
    const MatmulJob job = {&weights.q_a, q_latent_.data(), mla.q_rank, nullptr};
    multiply(pool, x, n_rows, {&job, 1});
    rms_norm(pool, q_latent_.data(), mla.q_rank, q_latent_.data(), mla.q_rank, weights.q_a_norm.data(),
             kLatentEps, n_rows, mla.q_rank);
    x = q_latent_.data();
  }
  const MatmulJob jobs[] = {{&weights.q_nope, q_nope_.data(), heads * mla.nope_dim, nullptr},
                            {&weights.q_rope, q_rope_.data(), heads * mla.rope_dim, nullptr}};
  multiply(pool, x, n_rows, jobs);
  apply_rope(pool, q_rope_.data(), heads * mla.rope_dim, config.ropes[0], args.positions, config.n_heads,
             mla.rope_dim);
  pool.parallel_for(n_rows, [&](int64_t row, int) {
    for (int64_t h = 0; h < heads; ++h) {
      std::memcpy(head_in_.data() + (h * n_rows + row) * mla.nope_dim,
                  q_nope_.data() + (row * heads + h) * mla.nope_dim, float_bytes(mla.nope_dim));
    }
  });
  per_head(pool, weights.k_t, n_rows, head_in_.data());
  pool.parallel_for(n_rows, [&](int64_t row, int) {
    for (int64_t h = 0; h < heads; ++h) {
      float* query = query_.data() + (row * heads + h) * (mla.kv_rank + mla.rope_dim);
      std::memcpy(query, head_out_.data() + (h * n_rows + row) * mla.kv_rank, float_bytes(mla.kv_rank));
      std::memcpy(query + mla.kv_rank, q_rope_.data() + (row * heads + h) * mla.rope_dim,
                  float_bytes(mla.rope_dim));
    }
  });
}

// x -> the cache: [normed latent | rotated key].
void MlaBlock::make_keys(ThreadPool& pool, const ModelConfig& config, const MlaWeights& weights,
                         KvPool& cache, const MlaArgs& args) {
  const MlaConfig& mla = config.mla;
  const auto n_rows = static_cast<int64_t>(args.positions.size());
  const int64_t wide = mla.kv_rank + mla.rope_dim;
  const MatmulJob jobs[] = {{&weights.latent, latent_.data(), mla.kv_rank, nullptr},
                            {&weights.k_rope, k_rope_.data(), mla.rope_dim, nullptr}};
  multiply(pool, args.x, n_rows, jobs);
  rms_norm(pool, key_.data(), wide, latent_.data(), mla.kv_rank, weights.kv_norm.data(), kLatentEps, n_rows,
           mla.kv_rank);
  apply_rope(pool, k_rope_.data(), mla.rope_dim, config.ropes[0], args.positions, 1, mla.rope_dim);
  for (int64_t row = 0; row < n_rows; ++row) {
    std::memcpy(key_.data() + row * wide + mla.kv_rank, k_rope_.data() + row * mla.rope_dim,
                float_bytes(mla.rope_dim));
  }
  kv_write(pool, cache, args.layer, args.runs, key_.data(), key_.data(), wide, wide);
}

// x (n_heads, n_rows, n_in), head h times weights[h] -> head_out_ (n_heads, n_rows, n_out).
void MlaBlock::per_head(ThreadPool& pool, std::span<const PackedMatrix> weights, int64_t n_rows,
                        const float* x) {
  std::fill(group_rows_.begin(), group_rows_.end(), static_cast<int32_t>(n_rows));
  const int64_t n_in = weights.front().n_in, n_out = weights.front().n_out;
  bool quantize = false;
  jobs_.clear();
  for (size_t h = 0; h < weights.size(); ++h) {
    quantize = quantize || uses_int8_activations(weights[h].kind);
    jobs_.push_back({&weights[h], static_cast<int64_t>(h) * n_rows, n_rows, head_out_.data(), n_out});
  }
  activations_.assign_groups(pool, x, group_rows_, n_in, n_in, quantize);
  matmul_groups(pool, jobs_, activations_);
}

void MlaBlock::multiply(ThreadPool& pool, const float* x, int64_t n_rows, std::span<const MatmulJob> jobs) {
  bool quantize = false;
  for (const MatmulJob& job : jobs) quantize = quantize || uses_int8_activations(job.w->kind);
  const int64_t n_in = jobs.front().w->n_in;
  activations_.assign(pool, x, n_rows, n_in, n_in, quantize);
  matmul(pool, jobs, activations_);
}

}  // namespace dspark
