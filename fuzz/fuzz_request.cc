// Any bytes as the body of a request, the path or query of a target, a file of keys: no crash, no hang, and
// what is accepted keeps to its limits. Request lines and headers are read by Boost.Beast, not by code of
// ours: see tests/server/serve_hostile_test.py for those.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "server/access.h"
#include "server/completion_request.h"
#include "server/http_text.h"

namespace {

void check(const dspark::ApiError& error, const dspark::CompletionRequest& request) {
  if (!error.ok()) {
    if (error.http < 400 || error.to_json().empty()) __builtin_trap();
    return;
  }
  const dspark::GenerateRequest& generate = request.generate;
  if (request.n < 1 || request.n > dspark::kMaxChoices) __builtin_trap();
  if (generate.max_tokens < 1 && generate.max_tokens != -1) __builtin_trap();
  if (generate.n_logprobs > dspark::kMaxLogprobs) __builtin_trap();
  if (!generate.sampling.validate(1 << 30).ok() && generate.sampling.logit_bias.empty()) __builtin_trap();
  if (generate.speculation && !generate.speculation->validate().ok()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  dspark::CompletionRequest request;
  const dspark::SamplingDefaults defaults;
  switch (data[0] % 6) {
    case 0:
      check(dspark::parse_completion(text, dspark::ApiKind::kChat, defaults, request), request);
      break;
    case 1:
      check(dspark::parse_completion(text, dspark::ApiKind::kCompletion, defaults, request), request);
      break;
    case 2:
      check(dspark::parse_responses(text, defaults, request), request);
      break;
    case 3:
      check(dspark::parse_messages(text, defaults, request), request);
      break;
    case 4:
      (void)dspark::ApiKeys::parse(text, "keys");
      break;
    default:
      (void)dspark::query_value(text, "model");
      if (dspark::path_decoded(text).size() > text.size()) __builtin_trap();
      if (dspark::make_request_id(text).empty()) __builtin_trap();
  }
  return 0;
}
