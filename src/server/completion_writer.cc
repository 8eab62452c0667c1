#include "server/completion_writer.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "text/utf8.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
  // Tokens may be parts of characters.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json byte_list(const std::string& bytes) {
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return list;
}

// JSON knows no infinity.
double finite(float logprob) {
  return std::isfinite(logprob) ? static_cast<double>(logprob) : -9999.0;
}

Json token_logprob(const std::string& bytes, float logprob) {
  return {{"token", bytes}, {"logprob", finite(logprob)}, {"bytes", byte_list(bytes)}};
}

Json chat_logprobs(const std::vector<TokenNote>& tokens) {
  Json content = Json::array();
  for (const TokenNote& note : tokens) {
    if (note.event.is_stop) continue;
    Json entry = token_logprob(note.bytes, note.event.logprob);
    Json top = Json::array();
    for (const auto& [bytes, logprob] : note.top) top.push_back(token_logprob(bytes, logprob));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

// Parts of characters would all come out as U+FFFD: they are told by their bytes, as OpenAI does it.
std::string token_name(const std::string& bytes) {
  if (is_valid_utf8(bytes)) return bytes;
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string name = "bytes:";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    name += "\\x";
    name += kDigits[byte >> 4];
    name += kDigits[byte & 15];
  }
  return name;
}

Json completion_logprobs(const std::vector<TokenNote>& tokens) {
  Json names = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const TokenNote& note : tokens) {
    if (note.event.is_stop) continue;
    names.push_back(token_name(note.bytes));
    values.push_back(finite(note.event.logprob));
    Json top = Json::object();
    for (const auto& [bytes, logprob] : note.top) {
      // Two tokens may spell the same; the likelier one comes first.
      const std::string name = token_name(bytes);
      if (!top.contains(name)) top[name] = finite(logprob);
    }
    tops.push_back(std::move(top));
    offsets.push_back(note.text_offset);
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

Json logprobs_of(const AnswerHead& head, const AnswerPiece& piece) {
  if (!head.logprobs) return nullptr;
  return head.kind == ApiKind::kChat ? chat_logprobs(piece.tokens) : completion_logprobs(piece.tokens);
}

Json trace_of(const AnswerPiece& piece) {
  Json tokens = Json::array();
  for (const TokenNote& note : piece.tokens) {
    Json entry = {{"text", note.shown},
                  {"origin", token_origin_name(note.event.origin)},
                  {"draft_idx", note.event.draft_idx},
                  {"confidence", nullptr},
                  {"target_probability", std::exp(static_cast<double>(note.event.logprob))}};
    if (note.draft_probability >= 0.0f) entry["draft_probability"] = note.draft_probability;
    if (note.confidence >= 0.0f) entry["confidence"] = note.confidence;
    if (note.source[0] != '\0') entry["source"] = note.source;
    tokens.push_back(std::move(entry));
  }
  return {{"index", piece.index}, {"tokens", std::move(tokens)}};
}

Json finish_of(const AnswerPiece& piece) {
  return piece.finish_reason.empty() ? Json(nullptr) : Json(piece.finish_reason);
}

Json calls_of(const AnswerPiece& piece, bool streamed) {
  Json calls = Json::array();
  for (const ToolCallPiece& call : piece.tool_calls) {
    Json entry = Json::object();
    if (streamed) entry["index"] = call.index;
    if (!call.id.empty()) {
      entry["id"] = call.id;
      entry["type"] = "function";
    }
    Json function = Json::object();
    if (!call.name.empty()) function["name"] = call.name;
    function["arguments"] = call.arguments;
    entry["function"] = std::move(function);
    calls.push_back(std::move(entry));
  }
  return calls;
}

Json delta_of(const AnswerPiece& piece) {
  Json delta = Json::object();
  if (piece.is_first) {
    delta["role"] = "assistant";
    if (piece.tool_calls.empty() && piece.reasoning.empty()) delta["content"] = piece.text;
  } else if (!piece.text.empty()) {
    delta["content"] = piece.text;
  }
  if (!piece.reasoning.empty()) delta["reasoning_content"] = piece.reasoning;
  if (!piece.tool_calls.empty()) delta["tool_calls"] = calls_of(piece, true);
  return delta;
}

Json message_of(const AnswerPiece& piece) {
  Json message = {{"role", "assistant"}, {"content", piece.text}};
  if (piece.text.empty() && !piece.tool_calls.empty()) message["content"] = nullptr;
  message["refusal"] = nullptr;
  if (!piece.reasoning.empty()) message["reasoning_content"] = piece.reasoning;
  if (!piece.tool_calls.empty()) message["tool_calls"] = calls_of(piece, false);
  return message;
}

Json open(const AnswerHead& head, bool streamed) {
  const char* object = head.kind == ApiKind::kCompletion ? "text_completion"
                       : streamed                        ? "chat.completion.chunk"
                                                         : "chat.completion";
  return {{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
}

Json choice_of(const AnswerHead& head, const AnswerPiece& piece, bool streamed) {
  Json choice = {{"index", piece.index}};
  if (head.kind == ApiKind::kCompletion) {
    choice["text"] = piece.text;
  } else if (streamed) {
    choice["delta"] = delta_of(piece);
  } else {
    choice["message"] = message_of(piece);
  }
  choice["logprobs"] = logprobs_of(head, piece);
  choice["finish_reason"] = finish_of(piece);
  return choice;
}

Json usage_of(const UsageCounts& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details",
           {{"reasoning_tokens", usage.reasoning_tokens},
            {"accepted_prediction_tokens", usage.accepted},
            {"rejected_prediction_tokens", usage.verified - usage.accepted}}},
          {"speculation",
           {{"rounds", usage.rounds},
            {"drafted", usage.drafted},
            {"verified", usage.verified},
            {"trimmed", usage.trimmed},
            {"accepted", usage.accepted}}}};
}

}  // namespace

void UsageCounts::add(const GenerateStats& stats, bool add_prompt) {
  if (add_prompt) {
    prompt_tokens += stats.prompt_tokens;
    cached_tokens += std::min(stats.cached_tokens, stats.prompt_tokens);
  }
  completion_tokens += stats.output_tokens;
  rounds += stats.speculation.rounds;
  drafted += stats.speculation.drafted;
  verified += stats.speculation.verified;
  trimmed += stats.speculation.trimmed;
  accepted += stats.speculation.accepted;
}

// Gives waiting tokens their place in the text, as far as it was released.
void TraceText::place(std::string_view text, bool at_end) {
  released_.append(text);
  size_t cut = 0;
  while (!waiting_.empty()) {
    TokenNote& note = waiting_.front();
    const size_t bytes = note.event.is_stop ? 0 : note.bytes.size();
    if (cut + bytes > released_.size() && !at_end) break;
    size_t end = std::min(released_.size(), cut + bytes);
    // A character belongs to the token that began it.
    while (end < released_.size() && (static_cast<unsigned char>(released_[end]) & 0xC0u) == 0x80u) ++end;
    if (at_end && waiting_.size() == 1) end = released_.size();
    placed_.push_back({std::move(note), placed_end_, placed_end_ + (end - cut)});
    placed_end_ = placed_.back().end;
    waiting_.pop_front();
    cut = end;
  }
  // What is left of the text belongs to tokens that are still to come, or to the last one.
  if (waiting_.empty() && !placed_.empty()) {
    placed_end_ = placed_.back().end += released_.size() - cut;
    cut = released_.size();
  }
  released_.erase(0, cut);
}

void TraceText::release(std::vector<TokenNote>& out) {
  TokenNote& note = placed_.front().note;
  note.shown = std::exchange(leftover_, {}) + note.shown;
  out.push_back(std::move(note));
  placed_.pop_front();
}

void TraceText::show(const OutputEvent& event, size_t first, std::vector<TokenNote>& out) {
  std::string_view rest = event.text;
  size_t at = event.begin;
  while (!rest.empty() && !placed_.empty()) {
    Placed& token = placed_.front();
    if (token.end > at) {
      const size_t n = std::min(rest.size(), token.end - at);
      token.note.shown.append(rest.substr(0, n));
      rest.remove_prefix(n);
      at += n;
    }
    if (token.end <= at) release(out);
  }
  passed_ = event.begin + event.text.size();
  std::string& late = out.size() > first ? out.back().shown : leftover_;
  late.append(rest);
}

void TraceText::share(std::string_view text, std::span<const OutputEvent> events, bool at_end,
                      std::vector<TokenNote>& tokens, std::vector<TokenNote>& out) {
  std::move(tokens.begin(), tokens.end(), std::back_inserter(waiting_));
  tokens.clear();
  place(text, at_end);
  const size_t first = out.size();
  for (const OutputEvent& event : events) {
    const bool is_text =
        event.kind == OutputEvent::Kind::kContent || event.kind == OutputEvent::Kind::kReasoning;
    if (is_text) show(event, first, out);
  }
  while (!placed_.empty() && (at_end || placed_.front().end <= passed_ || placed_.front().begin < passed_)) {
    release(out);
  }
  if (at_end && out.size() > first) out.back().shown += std::exchange(leftover_, {});
}

std::string sse_event(std::string_view json) {
  std::string event = "data: ";
  event.append(json).append("\n\n");
  return event;
}

std::string write_chunk(const AnswerHead& head, const AnswerPiece& piece) {
  Json chunk = open(head, true);
  chunk["choices"] = Json::array({choice_of(head, piece, true)});
  if (head.include_usage) chunk["usage"] = nullptr;
  if (head.trace) chunk["dspark"] = trace_of(piece);
  return dump(chunk);
}

std::string write_usage_chunk(const AnswerHead& head, const UsageCounts& usage) {
  Json chunk = open(head, true);
  chunk["choices"] = Json::array();
  chunk["usage"] = usage_of(usage);
  return dump(chunk);
}

std::string write_answer(const AnswerHead& head, const std::vector<AnswerPiece>& choices,
                         const UsageCounts& usage) {
  Json answer = open(head, false);
  Json list = Json::array(), traces = Json::array();
  for (const AnswerPiece& piece : choices) {
    list.push_back(choice_of(head, piece, false));
    if (head.trace) traces.push_back(trace_of(piece));
  }
  answer["choices"] = std::move(list);
  answer["usage"] = usage_of(usage);
  if (head.trace) answer["dspark"] = {{"choices", std::move(traces)}};
  return dump(answer);
}

}  // namespace dspark
