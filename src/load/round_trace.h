#pragma once
// What a drafter proposes behind every token of recorded answers, and how much of it is right: all that a
// scheduler's simulation needs, without tokens or text.
//
// As a file, JSON lines. The first: {"dspark_trace": 1, "model": NAME, "drafter": NAME, "max_block": 7,
// "has_confidence": true}. Then one line per answer: {"prompt": tokens, "output": tokens, "rounds": [[index,
// accepted, drafts, c_1, ...], ...]}: behind output token `index` (from 0) `drafts` tokens were proposed, the
// first `accepted` of them equal the answer; c_k is the confidence of draft k in thousandths (after
// calibration), left out without a confidence head.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "load/workload.h"

namespace dspark {

/// Proposals behind one token.
struct TraceAnchor {
  size_t first = 0;  // of their confidences in RoundTrace::confidence
  int16_t n_drafts = 0;
  int16_t accepted = 0;  // leading drafts that equal the answer
};

struct TraceAnswer {
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  std::vector<TraceAnchor> anchors;  // (output_tokens), by the index of the newest token; the last is empty
};

struct RoundTrace {
  std::string model, drafter;
  int32_t max_block = 0;
  bool has_confidence = false;
  std::vector<float> confidence;  // empty without a confidence head
  std::vector<TraceAnswer> answers;

  std::span<const float> confidence_of(const TraceAnchor& anchor) const {
    if (!has_confidence) return {};
    return std::span(confidence).subspan(anchor.first, static_cast<size_t>(anchor.n_drafts));
  }
  int64_t n_tokens() const;
};

/// A drafter whose drafts a threshold of 1 never verifies: `inner`, with confidences below 1 (0 when it has
/// none of its own). *has_confidence, which must outlive the drafter, tells whether its last block had any.
std::unique_ptr<Drafter> make_recording_drafter(std::unique_ptr<Drafter> inner, bool* has_confidence);

/// Answers all requests and records. `has_confidence`: what the recording drafter tells, read at the end.
/// requires: the engine is idle, its drafter comes from make_recording_drafter, its policy is a threshold of
/// 1, its rule coupled. errors: those of Engine::submit, out_of_memory, cancelled.
Result<RoundTrace> record_rounds(Engine& engine, std::span<const LoadRequest> workload,
                                 const SamplingParams& sampling, const bool& has_confidence,
                                 const std::function<void(int64_t answers)>& on_step = {},
                                 const std::atomic<bool>* cancel = nullptr);

/// Replaces the file at once or not at all. errors: those of writing.
Status write_round_trace(const std::string& path, const RoundTrace& trace);
/// errors: not_found, corrupt_data naming line, field and what was expected.
Result<RoundTrace> read_round_trace(const std::string& path);

}  // namespace dspark
