#include "models/deepseek_v4_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/row_math.h"
#include "kernels/rows.h"

namespace dspark {
namespace {

// out += weight * x.
void add_scaled(float* out, const float* x, float weight, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += weight * x[i];
}

// Entries that a query at `position` may see.
int32_t n_visible(int32_t position, int32_t rate) {
  return rate > 0 ? (position + 1) / rate : 0;
}

// out[ch] = sum over slots of softmax over slots (gates[s][ch]) * values[s][ch]; width channels.
// Overwrites gates.
void mix_slots(float* gates, const float* values, int32_t n_slots, int32_t width, float* out) {
  for (int32_t ch = 0; ch < width; ++ch) {
    float top = gates[ch];
    for (int32_t s = 1; s < n_slots; ++s) top = std::max(top, gates[s * width + ch]);
    float sum = 0.0f, mixed = 0.0f;
    for (int32_t s = 0; s < n_slots; ++s) {
      const float e = std::exp(gates[s * width + ch] - top);
      sum += e;
      mixed += e * values[s * width + ch];
    }
    out[ch] = mixed / sum;
  }
}

}  // namespace

void v4_position_angles(const RopeTable& table, int32_t position, float* cos_sin) {
  const size_t half = table.inv_freq.size();
  for (size_t j = 0; j < half; ++j) {
    const double angle = static_cast<double>(position) * static_cast<double>(table.inv_freq[j]);
    cos_sin[j] = static_cast<float>(std::cos(angle));
    cos_sin[half + j] = static_cast<float>(std::sin(angle));
  }
}

const float* v4_row_angles(const RopeTable& table, std::span<const int32_t> positions) {
  RopeAngles& angles = table.angles;
  if (!std::ranges::equal(angles.positions, positions)) {
    const size_t rope_dim = 2 * table.inv_freq.size();
    angles.positions.assign(positions.begin(), positions.end());
    angles.cos_sin.resize(positions.size() * rope_dim);
    for (size_t r = 0; r < positions.size(); ++r) {
      v4_position_angles(table, positions[r], angles.cos_sin.data() + r * rope_dim);
    }
  }
  return angles.cos_sin.data();
}

void v4_rotate(float* row, int32_t width, int32_t rope_dim, const float* cos_sin, float sign) {
  float* x = row + width - rope_dim;
  const int32_t half = rope_dim / 2;
  for (int32_t j = 0; j < half; ++j) {
    const float cos = cos_sin[j], sin = sign * cos_sin[half + j];
    const float x0 = x[2 * j], x1 = x[2 * j + 1];
    x[2 * j] = x0 * cos - x1 * sin;
    x[2 * j + 1] = x1 * cos + x0 * sin;
  }
}

void v4_attend_row(const ModelConfig& config, const float* q, const float* sinks, const float* keys,
                   int32_t n_keys, int32_t first_head, int32_t end_head, float* scores, float* out) {
  const int64_t c = config.head_dim;
  for (int32_t h = first_head; h < end_head; ++h) {
    const float* query = q + h * c;
    for (int32_t k = 0; k < n_keys; ++k) {
      scores[k] = dot_row(query, keys + k * c, c) * config.attention_scale;
    }
    scores[n_keys] = sinks[h];  // takes probability, brings nothing
    softmax_row(scores, n_keys + 1);
    float* head = out + h * c;
    std::fill_n(head, c, 0.0f);
    for (int32_t k = 0; k < n_keys; ++k) add_scaled(head, keys + k * c, scores[k], c);
  }
}

struct V4AttentionBlock::Call {
  const ModelConfig& config;
  const V4LayerWeights& weights;
  const V4AttentionArgs& args;
  const RopeTable& rope;
  mutable V4Rows rows;
  const float* angles = nullptr;  // (n_rows, rope_dim)
  int32_t rate = 0;

  int64_t n_rows() const { return static_cast<int64_t>(args.positions.size()); }
  bool sparse() const { return args.kind == V4Attention::kSparse; }
  // The run of a row.
  const KvRun& run_of(int64_t row) const {
    size_t i = 0;
    while (row >= args.runs[i].row_begin + args.runs[i].n_rows) ++i;
    return args.runs[i];
  }
};

bool V4AttentionBlock::grow(const ModelConfig& config, int64_t n_rows, int n_threads) {
  const V4Config& v4 = config.v4;
  const int64_t c = config.head_dim, heads = config.n_heads, ci = v4.index_dim;
  thread_.resize(static_cast<size_t>(n_threads));
  order_.resize(static_cast<size_t>(n_threads));
  const auto rows = static_cast<size_t>(n_rows);
  if (n_chosen_.size() < rows) n_chosen_.resize(rows);
  const size_t n_chosen = rows * static_cast<size_t>(v4.index_topk);
  const bool any_sparse =
      std::find(v4.attention.begin(), v4.attention.end(), V4Attention::kSparse) != v4.attention.end();
  if (any_sparse && chosen_.size() < n_chosen) chosen_.resize(n_chosen);
  group_rows_.resize(static_cast<size_t>(v4.o_groups));
  jobs_.reserve(static_cast<size_t>(v4.o_groups));
  return q_latent_.grow(n_rows * v4.q_rank) && q_.grow(n_rows * heads * c) && key_.grow(n_rows * c) &&
         kv_.grow(n_rows * 2 * c) && gate_.grow(n_rows * 2 * c) && index_kv_.grow(n_rows * 2 * ci) &&
         index_gate_.grow(n_rows * 2 * ci) && index_q_.grow(n_rows * v4.index_heads * ci) &&
         index_weights_.grow(n_rows * v4.index_heads) && attended_.grow(n_rows * heads * c) &&
         group_in_.grow(n_rows * heads * c) && group_out_.grow(n_rows * v4.o_groups * v4.o_rank) &&
         wide_.grow(n_rows * v4.o_groups * v4.o_rank);
}

bool V4AttentionBlock::run(ThreadPool& pool, const ModelConfig& config, const V4LayerWeights& weights,
                           KvPool& cache, const V4AttentionArgs& args) {
  const bool sliding = args.kind == V4Attention::kSliding;
  const V4LayerLayout layout = v4_layout(config, args.kind, cache.dtype);
  Call call{config,  weights, args, config.ropes[sliding ? 0 : 1], V4Rows(cache, args.layer, layout),
            nullptr, 0};
  call.angles = v4_row_angles(call.rope, args.positions);
  if (!sliding) call.rate = args.kind == V4Attention::kSparse ? config.v4.sparse_rate : config.v4.heavy_rate;
  if (!grow_threads(call, pool.n_threads())) return false;
  make_queries(pool, config, weights, call.rope, args.x, args.positions);
  make_keys(pool, config, weights, call.rope, args.x, args.positions, key_.data());
  write_rows(pool, call);
  if (call.rate > 0) close_windows(pool, call);
  if (call.sparse()) choose_entries(pool, call);
  attend(pool, call);
  project_out(pool, config, weights, call.n_rows(), call.angles, args.out);
  return true;
}

void V4AttentionBlock::make_queries(ThreadPool& pool, const ModelConfig& config,
                                    const V4LayerWeights& weights, const RopeTable& rope, const float* x,
                                    std::span<const int32_t> positions) {
  const V4Config& v4 = config.v4;
  const auto n_rows = static_cast<int64_t>(positions.size());
  const int64_t heads_dim = int64_t{config.n_heads} * config.head_dim;
  const float* angles = v4_row_angles(rope, positions);
  const MatmulJob down{&weights.q_a, q_latent_.data(), v4.q_rank, nullptr};
  multiply(pool, x, n_rows, {&down, 1});
  rms_norm(pool, q_latent_.data(), v4.q_rank, q_latent_.data(), v4.q_rank, weights.q_norm.data(),
           config.norm_eps, n_rows, v4.q_rank);
  const MatmulJob up{&weights.q_b, q_.data(), heads_dim, nullptr};
  multiply(pool, q_latent_.data(), n_rows, {&up, 1});
  rms_norm_heads(pool, q_.data(), heads_dim, nullptr, config.norm_eps, n_rows, config.n_heads,
                 config.head_dim);
  pool.parallel_for(n_rows, [&](int64_t row, int) {
    for (int32_t h = 0; h < config.n_heads; ++h) {
      v4_rotate(q_.data() + row * heads_dim + int64_t{h} * config.head_dim, config.head_dim, v4.rope_dim,
                angles + row * v4.rope_dim, 1.0f);
    }
  });
}

void V4AttentionBlock::make_keys(ThreadPool& pool, const ModelConfig& config, const V4LayerWeights& weights,
                                 const RopeTable& rope, const float* x, std::span<const int32_t> positions,
                                 float* key) {
  const auto n_rows = static_cast<int64_t>(positions.size());
  const float* angles = v4_row_angles(rope, positions);
  const int64_t c = config.head_dim;
  const MatmulJob job{&weights.kv, key, c, nullptr};
  multiply(pool, x, n_rows, {&job, 1});
  rms_norm(pool, key, c, key, c, weights.kv_norm.data(), config.norm_eps, n_rows, c);
  for (int64_t row = 0; row < n_rows; ++row) {
    v4_rotate(key + row * c, config.head_dim, config.v4.rope_dim, angles + row * config.v4.rope_dim, 1.0f);
  }
}

// Keys and the compressors' projections to the cache.
void V4AttentionBlock::write_rows(ThreadPool& pool, const Call& call) {
  const V4LayerWeights& w = call.weights;
  const int64_t n_rows = call.n_rows();
  const int64_t wide = w.compressor.wkv.n_out, index_wide = w.indexer.compressor.wkv.n_out;
  if (call.rate > 0) {
    const MatmulJob jobs[] = {{&w.compressor.wkv, kv_.data(), wide, nullptr},
                              {&w.compressor.wgate, gate_.data(), wide, nullptr},
                              {&w.indexer.compressor.wkv, index_kv_.data(), index_wide, nullptr},
                              {&w.indexer.compressor.wgate, index_gate_.data(), index_wide, nullptr}};
    multiply(pool, call.args.x, n_rows, std::span(jobs).first(call.sparse() ? 4 : 2));
  }
  // Tasks of whole runs: neighbouring rows share cache lines of a page.
  pool.parallel_for(static_cast<int64_t>(call.args.runs.size()), [&](int64_t i, int) {
    const KvRun& run = call.args.runs[static_cast<size_t>(i)];
    for (int32_t r = 0; r < run.n_rows; ++r) {
      const int64_t row = run.row_begin + r;
      const int32_t position = run.pos_begin + r;
      call.rows.write(run.pages, V4Field::kKey, position, key_.data() + row * call.config.head_dim);
      if (call.rate == 0) continue;
      call.rows.write(run.pages, V4Field::kKv, position, kv_.data() + row * wide);
      call.rows.write(run.pages, V4Field::kGate, position, gate_.data() + row * wide);
      if (!call.sparse()) continue;
      call.rows.write(run.pages, V4Field::kIndexKv, position, index_kv_.data() + row * index_wide);
      call.rows.write(run.pages, V4Field::kIndexGate, position, index_gate_.data() + row * index_wide);
    }
  });
}

// Makes the entry of a window whose last token is in the cache by now. Reads only what was stored, so that it
// does not matter in how many passes the tokens came.
void V4AttentionBlock::close_window(const Call& call, const KvRun& run, int32_t window, bool of_indexer,
                                    float* scratch) const {
  const V4Compressor& w = of_indexer ? call.weights.indexer.compressor : call.weights.compressor;
  const int32_t width = of_indexer ? call.config.v4.index_dim : call.config.head_dim;
  const int32_t rate = call.rate;
  const bool overlaps = call.sparse();
  const int32_t wide = overlaps ? 2 * width : width;
  const int32_t n_slots = overlaps && window > 0 ? 2 * rate : rate;
  float* gates = scratch;
  float* values = gates + int64_t{n_slots} * width;
  float* row = values + int64_t{n_slots} * width;
  const int32_t first = (window + 1) * rate - n_slots;  // token of slot 0
  for (int32_t s = 0; s < n_slots; ++s) {
    // The first half of a row belongs to the window behind, the second half to its own.
    const bool previous = n_slots > rate && s < rate;
    const int32_t half = overlaps && !previous ? width : 0;
    call.rows.read(run.pages, of_indexer ? V4Field::kIndexKv : V4Field::kKv, first + s, row);
    std::memcpy(values + int64_t{s} * width, row + half, static_cast<size_t>(width) * sizeof(float));
    call.rows.read(run.pages, of_indexer ? V4Field::kIndexGate : V4Field::kGate, first + s, row);
    const float* ape = w.ape.data() + int64_t{s % rate} * wide + half;
    for (int32_t ch = 0; ch < width; ++ch) gates[int64_t{s} * width + ch] = row[half + ch] + ape[ch];
  }
  float* entry = row;
  mix_slots(gates, values, n_slots, width, entry);
  rms_norm_row(entry, entry, w.norm.data(), call.config.norm_eps, width);
  float* angles = row + wide;
  const int32_t position = window * rate;
  v4_position_angles(call.rope, position, angles);
  v4_rotate(entry, width, call.config.v4.rope_dim, angles, 1.0f);
  call.rows.write_entry(run.pages, of_indexer ? V4Field::kIndexEntry : V4Field::kEntry, window, rate, entry);
}

void V4AttentionBlock::close_windows(ThreadPool& pool, const Call& call) {
  int64_t n_windows = 0;
  for (const KvRun& run : call.args.runs) {
    n_windows +=
        n_visible(run.pos_begin + run.n_rows - 1, call.rate) - n_visible(run.pos_begin - 1, call.rate);
  }
  if (n_windows == 0) return;
  pool.parallel_for(n_windows, [&](int64_t task, int thread) {
    int64_t left = task;
    for (const KvRun& run : call.args.runs) {
      const int32_t first = n_visible(run.pos_begin - 1, call.rate);
      const int32_t n = n_visible(run.pos_begin + run.n_rows - 1, call.rate) - first;
      if (left >= n) {
        left -= n;
        continue;
      }
      float* scratch = thread_[static_cast<size_t>(thread)].data();
      close_window(call, run, first + static_cast<int32_t>(left), false, scratch);
      if (call.sparse()) close_window(call, run, first + static_cast<int32_t>(left), true, scratch);
      return;
    }
  });
}

// Fills chosen_ and n_chosen_: the best entries of each row, ties to the older entry.
void V4AttentionBlock::choose_entries(ThreadPool& pool, const Call& call) {
  const V4Config& v4 = call.config.v4;
  const int64_t n_rows = call.n_rows();
  const int64_t ci = v4.index_dim, index_dim = v4.index_heads * ci;
  const MatmulJob query{&call.weights.indexer.wq_b, index_q_.data(), index_dim, nullptr};
  multiply(pool, q_latent_.data(), n_rows, {&query, 1});
  const MatmulJob weigh{&call.weights.indexer.weights, index_weights_.data(), v4.index_heads, nullptr};
  multiply(pool, call.args.x, n_rows, {&weigh, 1});
  const float key_scale = 1.0f / std::sqrt(static_cast<float>(ci));
  const float head_scale = 1.0f / std::sqrt(static_cast<float>(v4.index_heads));
  pool.parallel_for(n_rows, [&](int64_t row, int thread) {
    const int32_t n = n_visible(call.args.positions[static_cast<size_t>(row)], call.rate);
    int32_t* chosen = chosen_.data() + row * v4.index_topk;
    n_chosen_[static_cast<size_t>(row)] = std::min(n, v4.index_topk);
    if (n <= v4.index_topk) {
      for (int32_t w = 0; w < n; ++w) chosen[w] = w;
      return;
    }
    float* q = index_q_.data() + row * index_dim;
    for (int32_t h = 0; h < v4.index_heads; ++h) {
      v4_rotate(q + h * ci, v4.index_dim, v4.rope_dim, call.angles + row * v4.rope_dim, 1.0f);
    }
    const float* weights = index_weights_.data() + row * v4.index_heads;
    const KvRun& run = call.run_of(row);
    float* scores = thread_[static_cast<size_t>(thread)].data();
    float* key = scores + n;
    for (int32_t w = 0; w < n; ++w) {
      call.rows.read_entry(run.pages, V4Field::kIndexEntry, w, call.rate, key);
      float score = 0.0f;
      for (int32_t h = 0; h < v4.index_heads; ++h) {
        const float dot = dot_row(q + h * ci, key, ci) * key_scale;
        score += weights[h] * head_scale * std::max(dot, 0.0f);
      }
      scores[w] = std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
    }
    std::vector<int32_t>& order = order_[static_cast<size_t>(thread)];
    order.resize(static_cast<size_t>(n));
    for (int32_t w = 0; w < n; ++w) order[static_cast<size_t>(w)] = w;
    std::nth_element(order.begin(), order.begin() + v4.index_topk, order.end(), [&](int32_t a, int32_t b) {
      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
    });
    std::copy_n(order.begin(), v4.index_topk, chosen);
    std::sort(chosen, chosen + v4.index_topk);
  });
}

// Scratch for the row with the longest context.
bool V4AttentionBlock::grow_threads(const Call& call, int n_threads) {
  int32_t n_entries = 0;
  for (const KvRun& run : call.args.runs) {
    n_entries = std::max(n_entries, n_visible(run.pos_begin + run.n_rows - 1, call.rate));
  }
  const int64_t scores = int64_t{n_entries} + call.config.v4.index_dim;
  if (call.sparse()) n_entries = std::min(n_entries, call.config.v4.index_topk);
  const int64_t n_keys = int64_t{call.config.v4.window} + n_entries;
  const int32_t widest = std::max(call.config.head_dim, call.config.v4.index_dim);
  const int64_t window = (4 * int64_t{call.rate} + 2) * widest + call.config.v4.rope_dim;
  int64_t n_floats = std::max({scores, window, n_keys * (call.config.head_dim + 1) + 1});
  constexpr int64_t kStep = 1 << 16;  // contexts grow token by token; scratch does not
  n_floats = (n_floats + kStep - 1) / kStep * kStep;
  for (int i = 0; i < n_threads; ++i) {
    if (!thread_[static_cast<size_t>(i)].grow(n_floats)) return false;
  }
  return true;
}

void V4AttentionBlock::attend(ThreadPool& pool, const Call& call) {
  const int32_t heads = call.config.n_heads, window = call.config.v4.window;
  const int64_t c = call.config.head_dim;
  // A few rows are cut by heads as well, so that every thread has work; each head is computed by itself.
  const int64_t n_rows = call.n_rows();
  const int32_t n_parts = n_rows >= pool.n_threads() ? 1 : std::min<int32_t>(heads, 2 * pool.n_threads());
  pool.parallel_for(n_rows * n_parts, [&](int64_t task, int thread) {
    const int64_t row = task / n_parts;
    const auto part = static_cast<int32_t>(task % n_parts);
    const int32_t position = call.args.positions[static_cast<size_t>(row)];
    const KvRun& run = call.run_of(row);
    float* keys = thread_[static_cast<size_t>(thread)].data();
    int32_t n_keys = 0;
    for (int32_t p = std::max(0, position - window + 1); p <= position; ++p) {
      call.rows.read(run.pages, V4Field::kKey, p, keys + n_keys++ * c);
    }
    int32_t n_entries = n_visible(position, call.rate);
    if (call.sparse()) n_entries = n_chosen_[static_cast<size_t>(row)];
    for (int32_t i = 0; i < n_entries; ++i) {
      const int32_t w = call.sparse() ? chosen_[static_cast<size_t>(row * call.config.v4.index_topk + i)] : i;
      call.rows.read_entry(run.pages, V4Field::kEntry, w, call.rate, keys + n_keys++ * c);
    }
    v4_attend_row(call.config, q_.data() + row * heads * c, call.weights.sinks.data(), keys, n_keys,
                  part * heads / n_parts, (part + 1) * heads / n_parts, keys + n_keys * c,
                  attended_.data() + row * heads * c);
  });
}

void V4AttentionBlock::project_out(ThreadPool& pool, const ModelConfig& config, const V4LayerWeights& weights,
                                   int64_t n_rows, const float* angles, float* out) {
  const V4Config& v4 = config.v4;
  const int64_t heads_dim = int64_t{config.n_heads} * config.head_dim;
  const int64_t group = heads_dim / v4.o_groups, o_dim = int64_t{v4.o_groups} * v4.o_rank;
  pool.parallel_for(n_rows, [&](int64_t row, int) {
    float* heads = attended_.data() + row * heads_dim;
    for (int32_t h = 0; h < config.n_heads; ++h) {  // values are rotated keys: turn back at the query
      v4_rotate(heads + int64_t{h} * config.head_dim, config.head_dim, v4.rope_dim,
                angles + row * v4.rope_dim, -1.0f);
    }
    for (int64_t g = 0; g < v4.o_groups; ++g) {
      std::memcpy(group_in_.data() + (g * n_rows + row) * group, heads + g * group,
                  static_cast<size_t>(group) * sizeof(float));
    }
  });
  std::fill(group_rows_.begin(), group_rows_.end(), static_cast<int32_t>(n_rows));
  jobs_.clear();
  bool quantize = false;
  for (int64_t g = 0; g < v4.o_groups; ++g) {
    const PackedMatrix& w = weights.o_a[static_cast<size_t>(g)];
    quantize = quantize || uses_int8_activations(w.kind);
    jobs_.push_back({&w, g * n_rows, n_rows, group_out_.data(), v4.o_rank});
  }
  activations_.assign_groups(pool, group_in_.data(), group_rows_, group, group, quantize);
  matmul_groups(pool, jobs_, activations_);
  pool.parallel_for(n_rows, [&](int64_t row, int) {
    for (int64_t g = 0; g < v4.o_groups; ++g) {
      std::memcpy(wide_.data() + row * o_dim + g * v4.o_rank,
                  group_out_.data() + (g * n_rows + row) * v4.o_rank,
                  static_cast<size_t>(v4.o_rank) * sizeof(float));
    }
  });
  const MatmulJob job{&weights.o_b, out, config.dim, nullptr};
  multiply(pool, wide_.data(), n_rows, {&job, 1});
}

void V4AttentionBlock::multiply(ThreadPool& pool, const float* x, int64_t n_rows,
                                std::span<const MatmulJob> jobs) {
  bool quantize = false;
  for (const MatmulJob& job : jobs) quantize = quantize || uses_int8_activations(job.w->kind);
  const int64_t n_in = jobs.front().w->n_in;
  activations_.assign(pool, x, n_rows, n_in, n_in, quantize);
  matmul(pool, jobs, activations_);
}

}  // namespace dspark
