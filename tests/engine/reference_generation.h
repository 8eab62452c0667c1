#pragma once
// What a request must produce, by the definition: one token after the other, no cache, no batch, no drafts.

#include <random>
#include <string>
#include <vector>

#include "engine/fake_model.h"
#include "engine/generation.h"
#include "speculate/logits_processor.h"

namespace dspark::test {

inline constexpr int32_t kFakeVocab = 40;
inline constexpr int32_t kFakeEos = 39;

/// Text of a fake token: mostly letters, some of several bytes, one character in two halves, one without
/// text.
inline void fake_token_bytes(int32_t token, std::string& out) {
  switch (token) {
    case 30:
      out += "\xC3";
      break;
    case 31:
      out += "\xA9";
      break;
    case 32:
      out += "ab";
      break;
    case 33:
      out += "\xE2\x82\xAC";
      break;
    case 34:
      break;
    case kFakeEos:
      out += "<eos>";
      break;
    default:
      out += static_cast<char>('a' + token % 26);
  }
}

struct Expected {
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason reason = FinishReason::kNone;
};

/// Cuts `text` before the stop string that is complete first; false when there is none.
inline bool cut_at_stop(std::string& text, const std::vector<std::string>& stops) {
  size_t first_end = std::string::npos, begin = 0;
  for (const std::string& stop : stops) {
    const size_t at = text.find(stop);
    if (at == std::string::npos) continue;
    if (at + stop.size() < first_end || (at + stop.size() == first_end && at < begin)) {
      first_end = at + stop.size();
      begin = at;
    }
  }
  if (first_end != std::string::npos) text.resize(begin);
  return first_end != std::string::npos;
}

inline Expected expected_output(const GenerateRequest& request, int32_t context_length) {
  Expected expected;
  std::vector<int32_t> tokens = request.prompt;
  TokenCounts counts;
  counts.reset(tokens);
  SamplerScratch scratch;
  std::vector<float> logits;
  std::vector<int32_t> stop_ids = request.stop_token_ids;
  if (!request.ignore_eos) stop_ids.push_back(kFakeEos);
  while (expected.reason == FinishReason::kNone) {
    logits.clear();
    FakeModel::append_logits_after(tokens, kFakeVocab, logits);
    const int32_t token =
        choose_token(logits, request.sampling, &counts, static_cast<int64_t>(tokens.size()), scratch);
    tokens.push_back(token);
    counts.push(token);
    expected.tokens.push_back(token);
    if (std::count(stop_ids.begin(), stop_ids.end(), token) > 0) {
      expected.reason = FinishReason::kStop;
      break;
    }
    fake_token_bytes(token, expected.text);
    if (cut_at_stop(expected.text, request.stop_strings)) {
      expected.reason = FinishReason::kStop;
    } else if (static_cast<int32_t>(expected.tokens.size()) == request.max_tokens ||
               static_cast<int32_t>(tokens.size()) == context_length) {
      expected.reason = FinishReason::kLength;
    }
  }
  return expected;
}

/// A request with every feature switched on now and then.
inline GenerateRequest random_request(std::mt19937& rng) {
  const auto chance = [&rng](uint32_t one_in) { return rng() % one_in == 0; };
  const auto real = [&rng](float low, float high) {
    return low + (high - low) * static_cast<float>(rng() % 1000) / 1000.0f;
  };
  GenerateRequest request;
  const uint32_t alphabet = chance(2) ? 4 : kFakeVocab;
  request.prompt.resize(chance(3) ? rng() % 120 + 1 : rng() % 12 + 1);
  for (int32_t& token : request.prompt) token = static_cast<int32_t>(rng() % alphabet);
  SamplingParams& s = request.sampling;
  s.seed = (uint64_t{rng()} << 32) | rng();
  s.temperature = chance(3) ? 0.0f : real(0.2f, 1.5f);
  if (chance(3)) s.top_k = static_cast<int32_t>(rng() % 50);
  if (chance(3)) s.top_p = real(0.2f, 1.0f);
  if (chance(3)) s.min_p = real(0.0f, 0.3f);
  if (chance(3)) s.repetition_penalty = real(0.8f, 1.4f);
  if (chance(4)) s.presence_penalty = real(-0.5f, 1.0f);
  if (chance(4)) s.frequency_penalty = real(-0.2f, 0.6f);
  if (chance(5)) s.logit_bias = {{static_cast<int32_t>(rng() % kFakeVocab), real(-4.0f, 4.0f)}};
  request.max_tokens = chance(8) ? -1 : static_cast<int32_t>(rng() % 70 + 1);
  request.ignore_eos = chance(3);
  if (chance(4)) request.stop_token_ids = {static_cast<int32_t>(rng() % kFakeVocab)};
  if (chance(3)) {
    for (uint32_t i = rng() % 3 + 1; i > 0; --i) {
      std::string stop;
      for (uint32_t n = rng() % 3 + 1; n > 0; --n) fake_token_bytes(static_cast<int32_t>(rng() % 34), stop);
      if (!stop.empty()) request.stop_strings.push_back(stop);
    }
  }
  if (chance(5)) request.speculation = VerifyPolicy::fixed(static_cast<int32_t>(rng() % 17));
  return request;
}

}  // namespace dspark::test
