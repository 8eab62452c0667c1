#include <algorithm>
#include <utility>

#include "load/round_trace.h"
#include "speculate/confidence.h"

namespace dspark {
namespace {

constexpr float kMostConfidence = 0.9995f;  // thousandths cannot tell more

class RecordingDrafter final : public Drafter {
 public:
  RecordingDrafter(std::unique_ptr<Drafter> inner, bool* has_confidence)
      : inner_(std::move(inner)), has_confidence_(has_confidence) {}

  std::string_view name() const override { return inner_->name(); }
  int32_t max_block() const override { return inner_->max_block(); }
  int32_t model_block() const override { return inner_->model_block(); }
  int32_t short_block() const override { return inner_->short_block(); }
  std::span<const int32_t> tap_layers() const override { return inner_->tap_layers(); }
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override {
    DSPARK_RETURN_IF_ERROR(inner_->propose(requests, out));
    const size_t n = requests.size() * static_cast<size_t>(out.stride);
    *has_confidence_ = out.has_confidence;
    if (out.has_confidence) {
      for (float& confidence : out.confidence) confidence = std::min(confidence, kMostConfidence);
    } else {
      out.confidence.assign(n, 0.0f);
      out.confidence_logits.assign(n, 0.0f);
      out.has_confidence = true;
    }
    return ok_status();
  }
  void commit(std::span<const CommitEvent> events) override { inner_->commit(events); }
  void release(int32_t slot) override { inner_->release(slot); }
  PrefixReuse prefix_reuse() const override { return inner_->prefix_reuse(); }
  Status use_pages(int32_t n_pages) override { return inner_->use_pages(n_pages); }
  int32_t page_lookahead() const override { return inner_->page_lookahead(); }
  int32_t n_rows_in_pages(int32_t slot) const override { return inner_->n_rows_in_pages(slot); }
  int32_t n_rows_waiting(int32_t slot) const override { return inner_->n_rows_waiting(slot); }
  void complete_rows() override { inner_->complete_rows(); }
  void catch_up() override { inner_->catch_up(); }
  bool works_without_rows() const override { return inner_->works_without_rows(); }
  int32_t first_row(int32_t slot) const override { return inner_->first_row(slot); }
  void attach(const AttachEvent& event) override { inner_->attach(event); }
  Status set_calibration(std::span<const double> temperatures, std::span<const double> biases) override {
    return inner_->set_calibration(temperatures, biases);
  }
  size_t weight_bytes() const override { return inner_->weight_bytes(); }

 private:
  std::unique_ptr<Drafter> inner_;
  bool* has_confidence_;
};

/// Drafts of one answer until its text is known.
struct Recording {
  struct Round {
    int32_t index = 0;  // of the newest output token
    std::vector<int32_t> drafts;
    std::vector<float> confidence;
  };
  std::vector<int32_t> tokens;
  std::vector<Round> rounds;
  bool failed = false;
};

TraceAnswer answer_of(const Recording& recording, int32_t prompt_tokens, RoundTrace& trace) {
  TraceAnswer answer;
  answer.prompt_tokens = prompt_tokens;
  answer.output_tokens = static_cast<int32_t>(recording.tokens.size());
  answer.anchors.resize(recording.tokens.size());
  for (const Recording::Round& round : recording.rounds) {
    TraceAnchor& anchor = answer.anchors[static_cast<size_t>(round.index)];
    // Drafts that reach behind the end of the text are nothing that a scheduler would have to judge.
    const size_t room = recording.tokens.size() - 1 - static_cast<size_t>(round.index);
    const size_t n = std::min(round.drafts.size(), room);
    anchor.n_drafts = static_cast<int16_t>(n);
    while (
        static_cast<size_t>(anchor.accepted) < n &&
        round.drafts[static_cast<size_t>(anchor.accepted)] ==
            recording.tokens[static_cast<size_t>(round.index) + 1 + static_cast<size_t>(anchor.accepted)]) {
      ++anchor.accepted;
    }
    if (!trace.has_confidence) continue;
    anchor.first = trace.confidence.size();
    trace.confidence.insert(trace.confidence.end(), round.confidence.begin(),
                            round.confidence.begin() + static_cast<std::ptrdiff_t>(n));
  }
  return answer;
}

}  // namespace

std::unique_ptr<Drafter> make_recording_drafter(std::unique_ptr<Drafter> inner, bool* has_confidence) {
  return std::make_unique<RecordingDrafter>(std::move(inner), has_confidence);
}

int64_t RoundTrace::n_tokens() const {
  int64_t n = 0;
  for (const TraceAnswer& answer : answers) n += answer.output_tokens;
  return n;
}

Result<RoundTrace> record_rounds(Engine& engine, std::span<const LoadRequest> workload,
                                 const SamplingParams& sampling, const bool& has_confidence,
                                 const std::function<void(int64_t answers)>& on_step,
                                 const std::atomic<bool>* cancel) {
  std::vector<Recording> recordings(workload.size());
  std::vector<RequestId> ids;
  int64_t n_answers = 0;
  Status status;
  for (size_t i = 0; i < workload.size() && status.ok(); ++i) {
    GenerateRequest request;
    request.prompt = workload[i].prompt;
    request.max_tokens = workload[i].max_tokens;
    request.sampling = sampling;
    request.sampling.seed = workload[i].seed;
    const auto n_prompt = static_cast<int32_t>(workload[i].prompt.size());
    const auto id = engine.submit(
        std::move(request), [recording = &recordings[i], n_prompt, &n_answers](const StreamUpdate& update) {
          if (update.round != nullptr && !update.round->drafts.empty()) {
            recording->rounds.push_back({update.round->anchor_position - n_prompt,
                                         {update.round->drafts.begin(), update.round->drafts.end()},
                                         {update.round->confidence.begin(), update.round->confidence.end()}});
          }
          for (const TokenEvent& event : update.tokens) recording->tokens.push_back(event.token);
          if (update.finish_reason == FinishReason::kNone) return;
          recording->failed = update.finish_reason == FinishReason::kError;
          ++n_answers;
        });
    status = id.ok() ? ok_status() : id.status();
    if (id.ok()) ids.push_back(*id);
  }
  while (engine.has_work()) {
    if (status.ok() && cancel != nullptr && cancel->load(std::memory_order_relaxed))
      status = cancelled("stopped");
    if (!status.ok()) {
      for (const RequestId id : ids) engine.cancel(id);
    }
    engine.step();
    if (on_step) on_step(n_answers);
  }
  DSPARK_RETURN_IF_ERROR(status);
  RoundTrace trace;
  trace.has_confidence = has_confidence;
  trace.max_block = engine.drafter()->max_block();
  for (size_t i = 0; i < workload.size(); ++i) {
    if (recordings[i].failed) return out_of_memory("forward pass: no memory for its buffers");
    trace.answers.push_back(answer_of(recordings[i], static_cast<int32_t>(workload[i].prompt.size()), trace));
  }
  return trace;
}

}  // namespace dspark
