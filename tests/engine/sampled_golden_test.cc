// Sampled generations of the reference, driven by its recorded uniform numbers: target, drafter and the
// rejection rule put together without the engine, whose own noise is another.
//
// Order of the numbers: one draw for the first token; then per round one draw for each draft of the block
// (also those that a threshold cuts later), one coin for each draft that is kept, one draw for the correction
// or bonus (also in a round that a stop token ends, where it is thrown away).

#include <gtest/gtest.h>

#include <cmath>

#include "draft/draft_trace.h"
#include "engine/draft_golden.h"
#include "models/harness.h"
#include "speculate/accept.h"
#include "speculate/confidence.h"
#include "speculate/draw.h"

namespace dspark {
namespace {

using test::DraftGolden;
using Json = nlohmann::json;

std::vector<float> softmax(std::span<const float> logits, double temperature) {
  const double top = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights(logits.size());
  double sum = 0.0;
  for (size_t v = 0; v < logits.size(); ++v) {
    sum += weights[v] = std::exp((static_cast<double>(logits[v]) - top) / temperature);
  }
  std::vector<float> probs(logits.size());
  for (size_t v = 0; v < logits.size(); ++v) probs[v] = static_cast<float>(weights[v] / sum);
  return probs;
}

/// The recorded numbers, taken one by one.
class Uniforms {
 public:
  explicit Uniforms(const Json& generation)
      : values_(generation.at("uniforms").get<std::vector<double>>()),
        kinds_(generation.at("uniform_kinds").dump()) {
    std::erase_if(kinds_, [](char c) { return c != 'd' && c != 'c'; });
  }
  double next(char kind) {
    EXPECT_LT(at_, values_.size());
    EXPECT_EQ(kinds_.at(at_), kind) << "number " << at_;
    return values_.at(at_++);
  }
  bool all_used() const { return at_ == values_.size(); }

 private:
  std::vector<double> values_;
  std::string kinds_;
  size_t at_ = 0;
};

/// One sequence of target and drafter.
class SampledRun {
 public:
  SampledRun(LoadedModel& loaded, Drafter& drafter, const Json& want)
      : drafter_(drafter),
        vocab_(static_cast<size_t>(loaded.model->config().vocab_size)),
        dim_(loaded.model->config().dim),
        target_(*loaded.model, KvDType::kF32, 1, 256),
        temperature_(want.at("temperature").get<double>()),
        threshold_(want.at("confidence_threshold").get<double>()),
        uniforms_(want) {
    const std::span<const int32_t> taps = drafter.tap_layers();
    loaded.model->set_capture_layers({taps.begin(), taps.end()});
    sampling_.temperature = static_cast<float>(temperature_);
    drafter_.set_trace(&trace_);
    tokens_ = want.at("prompt").get<std::vector<int32_t>>();
    const test::Outputs rows = target_.forward(0, tokens_);
    const int32_t n_prompt = n_tokens();
    tokens_.push_back(draw_index(target_row(rows, n_prompt - 1), uniforms_.next('d'), scratch_));
    tell(rows, 0, n_prompt, 0);
  }
  ~SampledRun() {
    drafter_.set_trace(nullptr);
    drafter_.release(0);
  }

  int32_t n_tokens() const { return static_cast<int32_t>(tokens_.size()); }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  bool all_used() const { return uniforms_.all_used(); }

  /// returns: false when a stop token ended the text.
  bool round(const Json& want, const std::vector<int32_t>& stops) {
    const int32_t anchor_position = n_tokens() - 1;
    EXPECT_EQ(anchor_position, want.at("n").get<int32_t>());
    EXPECT_EQ(tokens_.back(), want.at("x0").get<int32_t>());
    std::vector<std::vector<float>> rows;
    std::vector<int32_t> drafts = draw_drafts(rows, stops);
    drafts.resize(kept(drafts.size()));
    EXPECT_EQ(drafts, want.at("drafts").get<std::vector<int32_t>>());

    std::vector<int32_t> run = {tokens_.back()};
    run.insert(run.end(), drafts.begin(), drafts.end());
    const test::Outputs out = target_.forward(0, run);
    std::vector<double> coins;
    for (size_t i = 0; i < drafts.size(); ++i) coins.push_back(uniforms_.next('c'));
    const GivenNoise noise{coins, uniforms_.next('d')};
    std::vector<float> row;
    const AcceptResult result = accept_rejection(
        drafts, [&](int32_t i) -> std::span<const float> { return row = target_row(out, i); },
        [&](int32_t i) {
          return DraftDistribution{rows[static_cast<size_t>(i)], {}};
        },
        noise, scratch_);
    int32_t accepted = result.accepted;
    bool stopped = false;
    for (int32_t i = 0; i < result.accepted && !stopped; ++i) {
      stopped = std::count(stops.begin(), stops.end(), drafts[static_cast<size_t>(i)]) > 0;
      if (stopped) accepted = i + 1;
    }
    EXPECT_EQ(accepted, want.at("accepted").get<int32_t>());
    EXPECT_EQ(stopped, want.at("stopped_inside_run").get<bool>());
    tokens_.insert(tokens_.end(), drafts.begin(), drafts.begin() + accepted);
    if (stopped) return false;
    tokens_.push_back(result.last_pick);
    EXPECT_EQ(result.last_pick, want.at("next_token").get<int32_t>());
    target_.truncate(0, anchor_position + accepted + 1);
    tell(out, anchor_position, accepted + 1, anchor_position + 1);
    return std::count(stops.begin(), stops.end(), result.last_pick) == 0;
  }

 private:
  std::vector<float> target_row(const test::Outputs& out, int32_t row) const {
    return softmax(std::span(out.logits).subspan(static_cast<size_t>(row) * vocab_, vocab_), temperature_);
  }

  /// Draws the block with the recorded numbers: the drafter is asked once per draft with those before it
  /// forced, since it keeps nothing of a proposal. rows: what each was drawn from. Eagle3 of the reference
  /// draws no further than a stop token.
  std::vector<int32_t> draw_drafts(std::vector<std::vector<float>>& rows, const std::vector<int32_t>& stops) {
    const int32_t n_drafts = drafter_.max_block();
    trace_.forced_tokens.assign(static_cast<size_t>(n_drafts), 0);
    DraftRequest request;
    request.anchor = tokens_.back();
    request.position = n_tokens() - 1;
    request.max_tokens = n_drafts;
    request.sampling = &sampling_;
    request.rule = AcceptRule::kRejection;
    for (int32_t k = 0; k < n_drafts; ++k) {
      block_.reset(1, n_drafts);
      EXPECT_TRUE(drafter_.propose({&request, 1}, block_).ok());
      EXPECT_EQ(trace_.n_slots, n_drafts);
      const auto at = static_cast<size_t>(k);
      rows.push_back(softmax(std::span(trace_.step_logits).subspan(at * vocab_, vocab_), temperature_));
      const int32_t draft = draw_index(rows.back(), uniforms_.next('d'), scratch_);
      trace_.forced_tokens[at] = draft;
      if (drafter_.name() == "eagle3" && std::count(stops.begin(), stops.end(), draft) > 0) break;
    }
    return {trace_.forced_tokens.begin(), trace_.forced_tokens.begin() + static_cast<ptrdiff_t>(rows.size())};
  }

  size_t kept(size_t n_drafts) const {
    if (threshold_ <= 0.0 || trace_.confidence_logits.empty()) return n_drafts;
    for (size_t k = 0; k < n_drafts; ++k) {
      if (sigmoid(static_cast<double>(trace_.confidence_logits[k])) < threshold_) return k;
    }
    return n_drafts;
  }

  /// Commits the rows the target kept, and the tokens behind them.
  void tell(const test::Outputs& out, int32_t first_row, int32_t n_rows, int32_t first_token) {
    CommitEvent event;
    event.token_position = first_token;
    event.tokens = std::span(tokens_).subspan(static_cast<size_t>(first_token));
    event.feature_position = first_row;
    event.n_features = n_rows;
    event.features = out.captured.data();
    event.tap_stride = static_cast<int64_t>(out.captured.size() / drafter_.tap_layers().size());
    event.dim = dim_;
    drafter_.commit({&event, 1});
  }

  Drafter& drafter_;
  size_t vocab_;
  int32_t dim_;
  test::Session target_;
  double temperature_;
  double threshold_;
  Uniforms uniforms_;
  SamplingParams sampling_;
  DraftTrace trace_;
  DraftBlock block_;
  DrawScratch scratch_;
  std::vector<int32_t> tokens_;
};

class SampledGenerations : public testing::TestWithParam<DraftGolden> {};

TEST_P(SampledGenerations, FollowTheGivenNumbers) {
  const DraftGolden& golden = GetParam();
  LoadedModel loaded = test::load_golden_target(golden);
  EngineOptions options;
  options.context_length = 256;
  options.kv_dtype = KvDType::kF32;
  auto drafter = load_drafter(loaded, options, {.spec = golden.draft.string(), .calibration = {}});
  ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
  const Json expected = golden.expected();
  ASSERT_GE(expected.at("sampled_generations").size(), 2u);
  for (const Json& want : expected.at("sampled_generations")) {
    SCOPED_TRACE("T " + want.at("temperature").dump() + " threshold " +
                 want.at("confidence_threshold").dump());
    const auto stops = want.at("stop_token_ids").get<std::vector<int32_t>>();
    const auto output = want.at("output").get<std::vector<int32_t>>();
    const size_t n_prompt = want.at("prompt").size();
    SampledRun run(loaded, **drafter, want);
    bool goes_on = true;
    for (const Json& round : want.at("rounds")) {
      ASSERT_TRUE(goes_on);
      goes_on = run.round(round, stops);
      if (HasFailure()) return;
    }
    EXPECT_TRUE(run.all_used());
    ASSERT_GE(run.tokens().size(), n_prompt + output.size());
    EXPECT_TRUE(
        std::equal(output.begin(), output.end(), run.tokens().begin() + static_cast<ptrdiff_t>(n_prompt)));
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, SampledGenerations, testing::ValuesIn(test::draft_goldens()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace dspark
