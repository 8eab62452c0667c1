#pragma once
// A target, a drafter and a confidence head without a model: tables keyed by the newest tokens of a text.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <span>
#include <vector>

#include "speculate/draw.h"

namespace dspark::test {

/// What is known behind a text.
struct Node {
  std::vector<float> target;  // (vocabulary)
  std::vector<float> probs;   // (draft vocabulary); empty: the drafter is certain of `draft`
  std::vector<int32_t> ids;   // column -> token; empty: the same
  int32_t draft = 0;          // used without probs
  double confidence = 1.0;    // of the draft that comes next; it does not see that draft

  DraftDistribution distribution() const { return {probs, ids}; }
};

enum class DrafterKind { kRandom, kIdentical, kNear, kWrongAndCertain, kReduced, kDisjoint };
inline constexpr DrafterKind kDrafterKinds[] = {DrafterKind::kRandom,  DrafterKind::kIdentical,
                                                DrafterKind::kNear,    DrafterKind::kWrongAndCertain,
                                                DrafterKind::kReduced, DrafterKind::kDisjoint};

/// A random row of multiples of 2^-20 that sum to 1 exactly, in float and in double.
inline std::vector<float> exact_row(std::mt19937& rng, size_t n, double peak) {
  std::normal_distribution<double> normal(0.0, peak);
  std::vector<double> weights(n);
  double sum = 0.0;
  for (double& w : weights) sum += w = std::exp(normal(rng));
  std::vector<float> row(n);
  double rest = 1.0;
  for (size_t v = 0; v < n; ++v) {
    row[v] = static_cast<float>(std::floor(weights[v] / sum * 0x1p20) * 0x1p-20);
    rest -= static_cast<double>(row[v]);
  }
  *std::max_element(row.begin(), row.end()) += static_cast<float>(rest);
  return row;
}

/// The drafter's part of a random node.
inline void add_drafter(std::mt19937& rng, DrafterKind kind, Node& node) {
  const size_t vocab = node.target.size();
  switch (kind) {
    case DrafterKind::kRandom:
      node.probs = exact_row(rng, vocab, 1.5);
      break;
    case DrafterKind::kIdentical:
      node.probs = node.target;
      break;
    case DrafterKind::kNear:  // off by 2^-12 in two tokens
      node.probs = node.target;
      *std::max_element(node.probs.begin(), node.probs.end()) -= 0x1p-12f;
      *std::min_element(node.probs.begin(), node.probs.end()) += 0x1p-12f;
      break;
    case DrafterKind::kWrongAndCertain:
      node.draft = static_cast<int32_t>(std::min_element(node.target.begin(), node.target.end()) -
                                        node.target.begin());
      break;
    case DrafterKind::kReduced:
      for (size_t v = rng() % 2; v < vocab; v += 2) node.ids.push_back(static_cast<int32_t>(v));
      node.probs = exact_row(rng, node.ids.size(), 1.0);
      break;
    case DrafterKind::kDisjoint:  // drafts what the target never says
      node.target = exact_row(rng, vocab - 1, 1.0);
      node.target.push_back(0.0f);
      node.probs.assign(vocab, 0.0f);
      node.probs.back() = 1.0f;
      break;
  }
}

class World {
 public:
  using Maker = std::function<Node(std::span<const int32_t> context)>;
  /// `make` is asked once per context: the newest `context_length` tokens of a text.
  World(size_t context_length, Maker make) : context_length_(context_length), make_(std::move(make)) {}

  /// Random rows; confidences that jump with the newest token and have nothing to do with acceptance.
  static World random(uint32_t seed, size_t vocab, DrafterKind kind, size_t context_length) {
    return World(context_length, [=](std::span<const int32_t> context) {
      uint32_t hash = seed * 2654435761u + 12345u;
      for (int32_t token : context) hash = (hash ^ static_cast<uint32_t>(token + 1)) * 16777619u + 7u;
      std::mt19937 rng(hash);
      Node node;
      node.target = exact_row(rng, vocab, 1.5);
      add_drafter(rng, kind, node);
      constexpr double kConfidences[] = {0.0, 0.1, 0.5, 0.9, 1.0, 1.0};
      node.confidence = kConfidences[rng() % 6];
      return node;
    });
  }

  const Node& after(std::span<const int32_t> text) {
    if (text.size() > context_length_) text = text.last(context_length_);
    key_.assign(text.begin(), text.end());
    auto at = nodes_.find(key_);
    if (at == nodes_.end()) at = nodes_.emplace(key_, make_(text)).first;
    return at->second;
  }

 private:
  size_t context_length_;
  Maker make_;
  std::vector<int32_t> key_;
  std::map<std::vector<int32_t>, Node> nodes_;
};

/// The example of the paper's Appendix A: after draft 0 the head is sure of the next draft, after draft 1 it
/// is sure of the opposite.
inline World appendix_a() {
  return World(8, [](std::span<const int32_t> text) {
    Node node;
    node.target = {0.7f, 0.3f};
    node.probs = {0.5f, 0.5f};
    node.confidence = text.size() <= 1 ? 0.8 : text.back() == 0 ? 0.9 : 0.0;
    return node;
  });
}
/// Its seconds of a pass over 0, 1, 2, 3 rows: 1 / (1, 0.5, 0.45) passes per second.
inline const std::vector<double> kAppendixACosts = {1.0, 1.0, 2.0, 1.0 / 0.45};

}  // namespace dspark::test
