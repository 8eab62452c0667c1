// /v1/responses and /v1/messages: what their bodies become, what is refused by name, and how answers are
// told.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "server/answer_stream.h"
#include "server/completion_request.h"
#include "server/reasoning_tokens.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

ApiError parse(ApiKind kind, const Json& body, CompletionRequest& out) {
  const SamplingDefaults defaults;
  return kind == ApiKind::kResponses ? parse_responses(body.dump(), defaults, out)
                                     : parse_messages(body.dump(), defaults, out);
}

Json minimal(ApiKind kind) {
  return Json::parse(kind == ApiKind::kResponses
                         ? R"({"input": "x"})"
                         : R"({"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]})");
}

// The field that an error names when the least body has these fields as well; "": there is no error.
std::string refused(ApiKind kind, const char* more) {
  Json body = minimal(kind);
  body.update(Json::parse(more));
  CompletionRequest request;
  const ApiError error = parse(kind, body, request);
  if (!error.ok()) {
    EXPECT_EQ(error.http, 400);
    EXPECT_EQ(error.message.rfind(error.param + ": ", 0), 0u) << error.message;
  }
  return error.param;
}

// (event, data) of a stream.
std::vector<std::pair<std::string, Json>> events_of(const std::string& bytes) {
  std::vector<std::pair<std::string, Json>> events;
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = bytes.find("\n\n", at), line = bytes.find("\ndata: ", at);
    events.emplace_back(bytes.substr(at + 7, line - at - 7),
                        Json::parse(bytes.substr(line + 7, end - line - 7)));
    at = end + 2;
  }
  return events;
}

Json event(const std::string& bytes, const std::string& type) {
  for (const auto& [name, data] : events_of(bytes)) {
    if (name == type) return data;
  }
  return nullptr;
}

TEST(Responses, ToolsAndTheirCallsBecomeThoseOfAChat) {
  CompletionRequest request;
  const ApiError error = parse(ApiKind::kResponses, Json::parse(R"({
    "instructions": "Be short.", "store": false, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
    "parallel_tool_calls": false, "reasoning": {"effort": "low", "summary": "auto"}, "service_tier": "auto",
    "metadata": {"a": "b"}, "text": {"verbosity": "low"}, "truncation": "disabled", "user": "me", "background": false,
    "tools": [{"type": "web_search"}, {"type": "local_shell"},
              {"type": "function", "name": "f", "strict": false, "parameters": {"type": "object"}},
              {"type": "custom", "name": "g", "description": "D", "format": {"type": "text"}}],
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
              {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xx"},
              {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"x\": 1}"},
              {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "one"}]},
              {"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "say \"x\""},
              {"type": "custom_tool_call_output", "call_id": "2", "output": "two"}]})"),
                               request);
  ASSERT_TRUE(error.ok()) << error.message;
  EXPECT_EQ(request.custom_tools, std::vector<std::string>{"g"});
  EXPECT_FALSE(request.parallel_tool_calls);
  EXPECT_EQ((*request.tools)[0]["function"]["strict"], false);
  ASSERT_EQ(request.tools->size(), 2u);
  const Json& custom = (*request.tools)[1]["function"];
  EXPECT_EQ(custom["name"], "g");
  EXPECT_EQ(custom["parameters"]["properties"]["input"]["type"], "string");
  EXPECT_EQ(custom["parameters"]["required"], Json::array({"input"}));
  const Json& turns = *request.messages;
  ASSERT_EQ(turns.size(), 6u) << turns.dump();
  EXPECT_EQ(turns[0]["role"], "system");
  EXPECT_EQ(turns[2]["tool_calls"][0]["function"]["arguments"]["x"], 1);
  EXPECT_EQ(turns[3]["content"], "one");
  EXPECT_EQ(turns[4]["tool_calls"][0]["function"]["name"], "g");
  EXPECT_EQ(turns[4]["tool_calls"][0]["function"]["arguments"]["input"], "say \"x\"");
  EXPECT_EQ(turns[5]["tool_call_id"], "2");
  EXPECT_EQ(turns[5]["content"], "two");
}

TEST(Responses, WhatWouldChangeTheAnswerIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"store": true, "include": [], "top_logprobs": 0})", ""},
      {R"({"previous_response_id": "x"})", "previous_response_id"},
      {R"({"conversation": {"id": "x"}})", "conversation"},
      {R"({"prompt": {"id": "x"}})", "prompt"},
      {R"({"background": true})", "background"},
      {R"({"top_logprobs": 2})", "top_logprobs"},
      {R"({"include": ["message.output_text.logprobs"]})", "include"},
      {R"({"instructions": ["x"]})", "instructions"},
      {R"({"text": 1})", "text"},
      {R"({"text": {"format": 1}})", "text.format"},
      {R"({"text": {"format": {"type": "xml"}}})", "text.format"},
      {R"({"tools": [{"type": "custom"}]})", "tools[0].name"},
      {R"({"tools": [{"type": "web_search"}, {"type": "function", "name": "f", "strict": "yes"}]})",
       "tools[1].strict"},
      {R"({"parallel_tool_calls": "no"})", "parallel_tool_calls"},
      {R"({"tools": [{"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark",
                                                                "definition": "x"}}]})",
       "tools[0].format"},
      {R"({"tool_choice": {"type": "web_search"}})", "tool_choice"},
      {R"({"input": []})", "input"},
      {R"({"input": [{"role": "king", "content": "x"}]})", "input[0].role"},
      {R"({"input": [{"type": "item_reference", "id": "x"}]})", "input[0].type"},
      {R"({"input": [{"type": "function_call", "call_id": "1"}]})", "input[0].name"},
      {R"({"input": [{"type": "custom_tool_call_output", "call_id": "1"}]})", "input[0].output"},
      {R"({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]})",
       "input[0].content"}};
  for (const auto& [more, field] : cases) EXPECT_EQ(refused(ApiKind::kResponses, more), field) << more;
}

TEST(Messages, AConversationWithToolsBecomesAChat) {
  CompletionRequest request;
  const ApiError error = parse(ApiKind::kMessages, Json::parse(R"({
    "max_tokens": 9, "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}, "metadata": {"user_id": "u"}, "thinking": {"type": "enabled", "budget_tokens": 1024},
    "service_tier": "auto", "context_management": {"edits": []}, "output_config": {"effort": "low"}, "mcp_servers": [],
    "system": [{"type": "text", "text": "You are ", "cache_control": {"type": "ephemeral"}},
               {"type": "text", "text": "short."}],
    "tools": [{"name": "f", "description": "D", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
              {"type": "custom", "name": "g", "input_schema": {"type": "object"}},
              {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
    "messages": [
      {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
      {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "I look."}, {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}}]},
      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "is_error": false,
        "content": [{"type": "text", "text": "one"}]}, {"type": "text", "text": "go on"}]}]})"),
                               request);
  ASSERT_TRUE(error.ok()) << error.message;
  EXPECT_TRUE(request.custom_tools.empty());
  EXPECT_FALSE(request.parallel_tool_calls);
  ASSERT_EQ(request.tools->size(), 2u);
  EXPECT_EQ((*request.tools)[1]["function"]["parameters"]["type"], "object");
  EXPECT_EQ((*request.template_fields)["enable_thinking"], true);
  EXPECT_EQ(request.format.kind, ResponseFormat::Kind::kText);
  const Json& turns = *request.messages;
  ASSERT_EQ(turns.size(), 5u) << turns.dump();
  EXPECT_EQ(turns[0]["content"], "You are short.");
  EXPECT_EQ(turns[2]["content"], "I look.");
  EXPECT_EQ(turns[2]["tool_calls"][0]["function"]["arguments"]["x"], 1);
  EXPECT_EQ(turns[3]["content"], "one");
  EXPECT_EQ(turns[4]["content"], "go on");
}

TEST(Messages, WhatWouldChangeTheAnswerIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"thinking": {"type": "adaptive"}, "mcp_servers": []})", ""},
      {R"({"mcp_servers": [{"type": "url", "url": "x", "name": "y"}]})", "mcp_servers"},
      {R"({"thinking": {"type": "sometimes"}})", "thinking.type"},
      {R"({"thinking": "yes"})", "thinking"},
      {R"({"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}})",
       "tool_choice.disable_parallel_tool_use"},
      {R"({"output_config": {"format": {"type": "json_schema"}}})", "output_config.format"},
      {R"({"output_config": {"format": 1}})", "output_config.format"},
      {R"({"output_format": {"type": "xml"}})", "output_format"},
      {R"({"stop_sequences": [""]})", "stop_sequences"},
      {R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]})",
       "messages"},
      {R"({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1"}]}]})",
       "messages[0].content[0].name"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]})",
       "messages[0].content[0].type"},
      {R"({"system": [{"type": "image"}]})", "system"}};
  for (const auto& [more, field] : cases) EXPECT_EQ(refused(ApiKind::kMessages, more), field) << more;
}

TEST(Messages, ThinkingAndFormatsReachTemplateAndGrammar) {
  const Json body = minimal(ApiKind::kMessages);
  Json more = body;
  more["thinking"] = {{"type", "disabled"}, {"budget_tokens", 0}};
  CompletionRequest off, kept, none;
  ASSERT_TRUE(parse(ApiKind::kMessages, more, off).ok());
  EXPECT_EQ((*off.template_fields)["enable_thinking"], false);
  more["chat_template_kwargs"] = Json::parse(R"({"enable_thinking": true})");  // wins
  ASSERT_TRUE(parse(ApiKind::kMessages, more, kept).ok());
  EXPECT_EQ((*kept.template_fields)["enable_thinking"], true);
  ASSERT_TRUE(parse(ApiKind::kMessages, body, none).ok());
  EXPECT_EQ(none.template_fields, nullptr);
  for (const char* field : {"output_format", "output_config"}) {
    more = body;
    const Json format = Json::parse(R"({"type": "json_schema", "schema": {"type": "integer"}})");
    if (std::string(field) == "output_config") more[field]["format"] = format;
    if (std::string(field) == "output_format") more[field] = format;
    CompletionRequest request;
    ASSERT_TRUE(parse(ApiKind::kMessages, more, request).ok()) << field;
    EXPECT_EQ(request.format.kind, ResponseFormat::Kind::kJsonSchema) << field;
    EXPECT_EQ(Json::parse(request.format.source)["type"], "integer") << field;
  }
}

TEST(Messages, AnyConversationCanBeCounted) {
  Json body = minimal(ApiKind::kMessages);
  body["messages"].push_back(Json::parse(R"({"role": "assistant", "content": "y"})"));
  CompletionRequest request;
  EXPECT_TRUE(parse_token_count(body.dump(), SamplingDefaults(), request).ok());
  EXPECT_EQ(request.messages->size(), 2u);
}

AnswerHead head_of(ApiKind kind) {
  AnswerHead head;
  head.id = "id";
  head.model = "m";
  head.kind = kind;
  head.prompt_tokens = 40;
  head.cached_tokens = 32;
  head.custom_tools = {"patch"};
  return head;
}

TEST(Messages, TellsStopSequenceAndInput) {
  AnswerPiece piece;
  piece.text = "hi";
  piece.finish_reason = "stop";
  UsageCounts usage;
  usage.prompt_tokens = 40;
  usage.cached_tokens = 32;
  for (const auto& [stop, reason] :
       {std::pair<const char*, const char*>{"", "end_turn"}, {"END", "stop_sequence"}}) {
    piece.stop_string = stop;
    const Json sequence = *stop == '\0' ? Json(nullptr) : Json(stop);
    AnswerPiece joined;
    join_pieces(joined, piece);
    const Json whole = Json::parse(write_whole(head_of(ApiKind::kMessages), {joined}, usage));
    EXPECT_EQ(whole["stop_reason"], reason);
    EXPECT_EQ(whole["stop_sequence"], sequence);
    const auto stream = make_answer_stream(head_of(ApiKind::kMessages));
    std::string bytes = stream->piece(piece);
    bytes += stream->end(usage, false);
    const Json delta = event(bytes, "message_delta");
    EXPECT_EQ(delta["delta"]["stop_reason"], reason);
    EXPECT_EQ(delta["delta"]["stop_sequence"], sequence);
    const Json start = event(bytes, "message_start")["message"];
    EXPECT_TRUE(start["stop_reason"].is_null());
    EXPECT_TRUE(start["stop_sequence"].is_null());
    for (const Json& counts : {start["usage"], delta["usage"], whole["usage"]}) {
      EXPECT_EQ(counts["input_tokens"], 8);
      EXPECT_EQ(counts["cache_read_input_tokens"], 32);
      EXPECT_EQ(counts["cache_creation_input_tokens"], 0);
    }
  }
}

TEST(Responses, CallsOfCustomToolsArePlainText) {
  UsageCounts usage;
  usage.completion_tokens = 9;
  usage.reasoning_tokens = 4;
  AnswerPiece first, rest;
  first.tool_calls = {{0, "1", "patch", "{\"input\": \"a \\\""}};
  rest.tool_calls = {{0, "", "", "b\\\"\"}"}, {1, "2", "f", "{\"x\": 1}"}};
  rest.finish_reason = "tool_calls";
  const AnswerHead head = head_of(ApiKind::kResponses);
  const auto stream = make_answer_stream(head);
  std::string bytes = stream->piece(first);
  bytes += stream->piece(rest);
  bytes += stream->end(usage, false);
  AnswerPiece whole;
  join_pieces(whole, first);
  join_pieces(whole, rest);
  const Json answer = Json::parse(write_whole(head, {whole}, usage));
  const Json& call = answer["output"][0];
  EXPECT_EQ(answer["parallel_tool_calls"], true);
  EXPECT_EQ(call["type"], "custom_tool_call");
  EXPECT_EQ(call["call_id"], "1");
  EXPECT_EQ(call["input"], "a \"b\"");
  EXPECT_FALSE(call.contains("arguments"));
  EXPECT_EQ(answer["output"][1]["type"], "function_call");
  EXPECT_EQ(answer["usage"]["output_tokens_details"]["reasoning_tokens"], 4);
  EXPECT_EQ(event(bytes, "response.custom_tool_call_input.delta")["delta"], "a \"b\"");
  EXPECT_EQ(event(bytes, "response.custom_tool_call_input.done")["input"], "a \"b\"");
  EXPECT_EQ(event(bytes, "response.function_call_arguments.delta")["delta"], "{\"x\": 1}");
  const Json end = event(bytes, "response.completed")["response"];
  EXPECT_EQ(end["output"], answer["output"]);
  EXPECT_EQ(end["usage"], answer["usage"]);
  std::vector<Json> done;
  for (const auto& [name, data] : events_of(bytes)) {
    if (name == "response.output_item.done") done.push_back(data["item"]);
  }
  EXPECT_EQ(Json(done), answer["output"]);
  // One that was cut off stands as it came.
  first.finish_reason = "length";
  const Json cut = Json::parse(write_whole(head, {first}, usage));
  EXPECT_EQ(cut["status"], "incomplete");
  EXPECT_EQ(cut["output"][0]["input"], "{\"input\": \"a \\\"");
}

TEST(Responses, TellWhichToolsTheModelWasShown) {
  CompletionRequest request;
  Json body = minimal(ApiKind::kResponses);
  body["tools"] = Json::parse(R"([{"type": "web_search"}, {"type": "local_shell"},
      {"type": "function", "name": "f", "description": "D", "strict": true, "parameters": {"type": "object"}},
      {"type": "custom", "name": "patch", "description": "P", "format": {"type": "text"}}])");
  const ApiError error = parse(ApiKind::kResponses, body, request);
  ASSERT_TRUE(error.ok()) << error.message;
  AnswerHead head = head_of(ApiKind::kResponses);
  AnswerPiece piece;
  piece.text = "hi";
  piece.finish_reason = "stop";
  EXPECT_EQ(Json::parse(write_whole(head, {piece}, {}))["tools"], Json::array());
  head.tools = request.tools;
  const Json wanted = Json::parse(R"([
      {"type": "function", "name": "f", "description": "D", "strict": true, "parameters": {"type": "object"}},
      {"type": "custom", "name": "patch", "description": "P", "format": {"type": "text"}}])");
  EXPECT_EQ(Json::parse(write_whole(head, {piece}, {}))["tools"], wanted);
  const auto stream = make_answer_stream(head);
  std::string bytes = stream->piece(piece);
  bytes += stream->end({}, false);
  EXPECT_EQ(event(bytes, "response.created")["response"]["tools"], wanted);
  EXPECT_EQ(event(bytes, "response.completed")["response"]["tools"], wanted);
}

// Tokens counted in an answer that comes in updates of so many tokens.
int64_t reasoning_in(const std::vector<std::string>& tokens, size_t per_update) {
  OutputParser::Options options;
  options.format = {ToolFormat::kHermes, true, ReasoningFormat::kThink};
  OutputParser parser(options);
  ReasoningTokens counter;
  for (size_t begin = 0; begin < tokens.size(); begin += per_update) {
    std::vector<OutputEvent> events;
    std::string text;
    const size_t end = std::min(tokens.size(), begin + per_update);
    for (size_t i = begin; i < end; ++i) {
      counter.add_token(tokens[i].size());
      text += tokens[i];
    }
    parser.feed(text, events);
    if (end == tokens.size()) parser.finish(events);
    for (const OutputEvent& one : events) counter.add_event(one);
  }
  return counter.count();
}

TEST(ReasoningTokens, AreThoseWithAByteOfReasoning) {
  const std::pair<std::vector<std::string>, int64_t> cases[] = {
      {{"<think>", "\n", "ab", " c", "d\n", "</think>", "\n\n", "hi", " there"}, 3},
      {{"<thi", "nk>a", "b", "", "c</th", "ink>", "hi"}, 3},  // tokens with a part of a tag count too
      {{"<think>", "a ", "\n", " b", "</think>", "x"}, 3},    // a blank inside counts, those around do not
      {{"no", " reasoning", " <think>", "x"}, 0},
      {{"<think>", "a", "b", "c"}, 3},  // cut off
      {{"<think>", "</think>", "x"}, 0},
      {{"<think>", "a", "</think>", "<tool_call>", "{\"name\": \"f\", \"arguments\": {}}", "</tool_call>"},
       1}};
  for (const auto& [tokens, wanted] : cases) {
    for (size_t n = 1; n <= tokens.size(); ++n) EXPECT_EQ(reasoning_in(tokens, n), wanted) << tokens[2] << n;
  }
}

}  // namespace
}  // namespace dspark
