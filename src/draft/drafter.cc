#include "draft/drafter.h"

#include <string>

namespace dspark {

void DraftBlock::reset(size_t n_requests, int32_t row_stride) {
  stride = row_stride;
  const size_t n = n_requests * static_cast<size_t>(row_stride);
  tokens.assign(n, 0);
  confidence.assign(n, 1.0f);
  confidence_logits.assign(n, 0.0f);
  evidence.assign(n, 0.0f);
  evidence_kind = DraftEvidence::kNone;
  probability.assign(n, -1.0f);
  sources.assign(n, ProposalSource::kModel);
  model_sequences = static_cast<int32_t>(n_requests);
  n_tokens.assign(n_requests, 0);
  has_probs.assign(n_requests, 0);
  has_confidence = false;
  draft_vocab = 0;
  vocab_ids = {};
}

void DraftBlock::keep_probs(int32_t n_columns, std::span<const int32_t> ids) {
  draft_vocab = n_columns;
  vocab_ids = ids;
  const size_t n = tokens.size() * static_cast<size_t>(n_columns);
  if (probs.size() < n) probs.resize(n);
}

std::span<float> DraftBlock::probs_row(size_t request_idx, int32_t draft_idx) {
  const auto n = static_cast<size_t>(draft_vocab);
  return std::span(probs).subspan(at(request_idx, draft_idx) * n, n);
}

Status Drafter::set_calibration(std::span<const double> temperatures, std::span<const double>) {
  if (temperatures.empty()) return ok_status();
  return unsupported("drafter " + std::string(name()) + " has no confidence head to calibrate");
}

Status Drafter::use_pages(int32_t) {
  return unsupported(std::string("drafter ") + std::string(name()) + ": keeps no rows in pages");
}

void Drafter::attach(const AttachEvent& event) {
  CommitEvent commit_event;
  commit_event.slot = event.slot;
  commit_event.tokens = event.tokens;
  commit_event.n_features = static_cast<int32_t>(event.tokens.size());
  commit({&commit_event, 1});
}

DraftDistribution DraftBlock::distribution(size_t request_idx, int32_t draft_idx) const {
  if (draft_vocab == 0 || has_probs[request_idx] == 0) return {};
  if (sources[at(request_idx, draft_idx)] == ProposalSource::kLookup) return {};
  return {const_cast<DraftBlock*>(this)->probs_row(request_idx, draft_idx), vocab_ids};
}

}  // namespace dspark
