// Bodies of requests: every field arrives, every wrong one is named.
#include "server/completion_request.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "server/json_fields.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

Json chat_body() {
  return Json::parse(R"({"messages": [{"role": "user", "content": "hello"}]})");
}

ApiError parse_chat(const Json& body, CompletionRequest& out) {
  return parse_completion(body.dump(), ApiKind::kChat, SamplingDefaults(), out);
}

// The error of a chat with one more field.
ApiError chat_error(const std::string& field, const Json& value) {
  Json body = chat_body();
  body[field] = value;
  CompletionRequest request;
  return parse_chat(body, request);
}

TEST(CompletionRequest, DefaultsAreThoseOfTheServer) {
  CompletionRequest request;
  SamplingDefaults defaults;
  defaults.temperature = 0.25f;
  defaults.top_k = 7;
  ASSERT_TRUE(parse_completion(chat_body().dump(), ApiKind::kChat, defaults, request).ok());
  EXPECT_FLOAT_EQ(request.generate.sampling.temperature, 0.25f);
  EXPECT_EQ(request.generate.sampling.top_k, 7);
  EXPECT_EQ(request.generate.max_tokens, -1);
  EXPECT_EQ(request.generate.n_logprobs, -1);
  EXPECT_EQ(request.n, 1);
  EXPECT_FALSE(request.stream);
  EXPECT_FALSE(request.has_seed);
  EXPECT_FALSE(request.generate.speculation.has_value());
}

TEST(CompletionRequest, EveryFieldArrives) {
  Json body = chat_body();
  body.update(Json::parse(R"({
    "model": "m", "stream": true, "stream_options": {"include_usage": true}, "n": 3, "seed": 12, "stop": ["a", "b"],
    "max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.75, "top_k": 5, "min_p": 0.125,
    "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.5, "logit_bias": {"3": -100, "5": 2},
    "logprobs": true, "top_logprobs": 4, "ignore_eos": true, "stop_token_ids": [7], "priority": 2, "deadline_s": 1.5,
    "speculation": {"policy": "fixed:3", "accept": "rejection", "max_draft": 2}, "dspark_trace": true,
    "unknown": {"x": 1}})"));
  CompletionRequest request;
  const ApiError error = parse_chat(body, request);
  ASSERT_TRUE(error.ok()) << error.message;
  const GenerateRequest& generate = request.generate;
  EXPECT_EQ(request.model, "m");
  EXPECT_TRUE(request.stream && request.include_usage && request.logprobs && request.trace &&
              request.has_seed);
  EXPECT_EQ(request.n, 3);
  EXPECT_EQ(generate.sampling.seed, 12u);
  EXPECT_EQ(generate.stop_strings, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(generate.max_tokens, 9);
  EXPECT_FLOAT_EQ(generate.sampling.temperature, 0.5f);
  EXPECT_FLOAT_EQ(generate.sampling.top_p, 0.75f);
  EXPECT_EQ(generate.sampling.top_k, 5);
  EXPECT_FLOAT_EQ(generate.sampling.min_p, 0.125f);
  EXPECT_FLOAT_EQ(generate.sampling.presence_penalty, 1.0f);
  EXPECT_FLOAT_EQ(generate.sampling.frequency_penalty, -1.0f);
  EXPECT_FLOAT_EQ(generate.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(generate.sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{3, -100.0f}, {5, 2.0f}}));
  EXPECT_EQ(generate.n_logprobs, 4);
  EXPECT_TRUE(generate.ignore_eos);
  EXPECT_EQ(generate.stop_token_ids, std::vector<int32_t>{7});
  EXPECT_EQ(generate.queue.priority, 2);
  EXPECT_DOUBLE_EQ(generate.queue.deadline_s, 1.5);
  ASSERT_TRUE(generate.speculation.has_value());
  EXPECT_EQ(generate.speculation->to_string(), "fixed:3");
  EXPECT_EQ(generate.accept_rule, AcceptRule::kRejection);
  EXPECT_EQ(generate.max_drafts, 2);
}

// Every integer of 64 bits is a seed; from 2^63 on there is none.
TEST(CompletionRequest, SeedsAreAllIntegersOf64Bits) {
  const std::pair<const char*, uint64_t> cases[] = {{"4611686018427387904", uint64_t{1} << 62},
                                                    {"9223372036854775807", ~uint64_t{0} >> 1},
                                                    {"-9223372036854775808", uint64_t{1} << 63},
                                                    {"1000000000000000001", 1000000000000000001u},
                                                    {"1e3", 1000},
                                                    {"3.0", 3}};
  for (const auto& [seed, wanted] : cases) {
    CompletionRequest request;
    const ApiError error = chat_error("seed", Json::parse(seed));
    EXPECT_TRUE(error.ok()) << error.message;
    Json body = chat_body();
    body["seed"] = Json::parse(seed);
    ASSERT_TRUE(parse_chat(body, request).ok()) << seed;
    EXPECT_TRUE(request.has_seed);
    EXPECT_EQ(request.generate.sampling.seed, wanted) << seed;
  }
  for (const char* seed :
       {"9223372036854775808", "18446744073709551615", "18446744073709551616", "1e19", "0.5"}) {
    const ApiError error = chat_error("seed", Json::parse(seed));
    EXPECT_EQ(error.param, "seed") << seed;
    EXPECT_EQ(error.http, 400) << seed;
  }
  EXPECT_NE(chat_error("seed", Json::parse("9223372036854775808")).message.find("found 9223372036854775808"),
            std::string::npos);
}

TEST(CompletionRequest, FieldsThatWouldChangeTheAnswerAreRefused) {
  const auto refused = [](ApiKind kind, const char* more) {
    Json body = kind == ApiKind::kChat ? chat_body() : Json::parse(R"({"prompt": "x"})");
    body.update(Json::parse(more));
    CompletionRequest request;
    return parse_completion(body.dump(), kind, SamplingDefaults(), request).param;
  };
  const std::pair<const char*, const char*> completions[] = {
      {R"({"suffix": "x"})", "suffix"},
      {R"({"suffix": ""})", ""},
      {R"({"suffix": null, "best_of": null})", ""},
      {R"({"best_of": 2, "n": 2})", ""},
      {R"({"best_of": 3, "n": 2})", "best_of"},
      {R"({"best_of": 1})", ""},
      {R"({"echo": true, "logprobs": 0})", "echo"},
      {R"({"echo": true, "logprobs": null})", ""},
      {R"({"echo": false, "logprobs": 1})", ""},
      {R"({"echo": true, "max_tokens": 0})", "max_tokens"},
      {R"({"functions": [{"name": "f"}], "modalities": ["audio"]})", ""}};  // not of this interface
  for (const auto& [more, field] : completions) EXPECT_EQ(refused(ApiKind::kCompletion, more), field) << more;
  const std::pair<const char*, const char*> chats[] = {
      {R"({"functions": [{"name": "f"}]})", "functions"},
      {R"({"functions": []})", ""},
      {R"({"function_call": {"name": "f"}})", "function_call"},
      {R"({"function_call": "none"})", ""},
      {R"({"function_call": "auto"})", ""},
      {R"({"modalities": ["text", "audio"]})", "modalities"},
      {R"({"modalities": ["text"]})", ""},
      {R"({"suffix": "x", "best_of": 2})", ""}};
  for (const auto& [more, field] : chats) EXPECT_EQ(refused(ApiKind::kChat, more), field) << more;
}

TEST(CompletionRequest, NullMeansAbsent) {
  Json body = chat_body();
  for (const char* field : {"n", "seed", "stop", "max_tokens", "temperature", "top_p", "logit_bias",
                            "logprobs", "stream", "stream_options", "response_format", "tools", "speculation",
                            "model", "parallel_tool_calls", "grammar_scope"}) {
    body[field] = nullptr;
  }
  CompletionRequest request;
  EXPECT_TRUE(parse_chat(body, request).ok());
}

TEST(CompletionRequest, WrongFieldsAreNamed) {
  const std::vector<std::pair<std::string, Json>> cases = {{"temperature", "hot"},
                                                           {"temperature", -0.5},
                                                           {"temperature", true},
                                                           {"top_p", 1.5},
                                                           {"top_p", 0},
                                                           {"top_k", 2.5},
                                                           {"min_p", -1},
                                                           {"n", 0},
                                                           {"n", 129},
                                                           {"n", "2"},
                                                           {"max_tokens", 0},
                                                           {"max_tokens", 3000000000LL},
                                                           {"seed", 1.5},
                                                           {"seed", "1"},
                                                           {"stop", 5},
                                                           {"stop", Json::array({1})},
                                                           {"stop", ""},
                                                           {"stream", 1},
                                                           {"logprobs", 2},
                                                           {"top_logprobs", 3},
                                                           {"logit_bias", "x"},
                                                           {"messages", "hi"},
                                                           {"messages", Json::array()},
                                                           {"model", 4},
                                                           {"tools", "x"},
                                                           {"tools", {1}},
                                                           {"tool_choice", 3},
                                                           {"parallel_tool_calls", "no"},
                                                           {"grammar_scope", 1},
                                                           {"grammar_scope", "content"},
                                                           {"presence_penalty", 2.5},
                                                           {"response_format", 1},
                                                           {"speculation", 1},
                                                           {"stop_token_ids", {-1}},
                                                           {"priority", 1000},
                                                           {"deadline_s", -1},
                                                           {"grammar", 1},
                                                           {"ignore_eos", "yes"},
                                                           {"stream_options", {1}},
                                                           {"repetition_penalty", 0},
                                                           {"chat_template_kwargs", 1}};
  for (const auto& [field, value] : cases) {
    const ApiError error = chat_error(field, value);
    EXPECT_EQ(error.http, 400) << field;
    EXPECT_FALSE(error.ok()) << field << " = " << value.dump();
    EXPECT_EQ(error.param.substr(0, field.size()), field) << value.dump() << ": " << error.message;
  }
  EXPECT_EQ(chat_error("logit_bias", {{"x", 1}}).param, "logit_bias");
  EXPECT_EQ(chat_error("logit_bias", {{"1", 101}}).param, "logit_bias");
  EXPECT_EQ(chat_error("logit_bias", {{"1", 1}, {"01", 1}}).param, "logit_bias");
  EXPECT_EQ(chat_error("speculation", {{"policy", "fixed:x"}}).param, "speculation.policy");
  EXPECT_EQ(chat_error("speculation", {{"max_draft", 65}}).param, "speculation.max_draft");
  EXPECT_EQ(chat_error("stream_options", {{"include_usage", 1}}).param.substr(0, 14), "stream_options");
  EXPECT_EQ(chat_error("response_format", {{"type", "xml"}}).param, "response_format.type");
}

TEST(CompletionRequest, ToolsAndWhatGrammarsHold) {
  const auto with = [](const char* fields) {
    Json body = chat_body();
    body.update(Json::parse(fields));
    return body;
  };
  const char* tools = R"({"tools": [{"type": "function", "function": {"name": "f", "strict": null}},
    {"type": "function", "function": {"name": "g", "strict": true}}]})";
  CompletionRequest plain, several, one, whole;
  ASSERT_TRUE(parse_chat(with(R"({"grammar": "root ::= \"a\""})"), plain).ok());
  EXPECT_TRUE(plain.parallel_tool_calls);
  EXPECT_FALSE(plain.format.whole_text);
  ASSERT_TRUE(parse_chat(with(tools), several).ok());
  ASSERT_TRUE(parse_chat(with(R"({"parallel_tool_calls": false})"), one).ok());
  EXPECT_FALSE(one.parallel_tool_calls);
  ASSERT_TRUE(parse_chat(with(R"({"grammar": "root ::= \"a\"", "grammar_scope": "text"})"), whole).ok());
  EXPECT_TRUE(whole.format.whole_text);
  EXPECT_EQ(whole.format.kind, ResponseFormat::Kind::kGrammar);
  CompletionRequest bad;
  EXPECT_EQ(parse_chat(with(R"({"grammar": "x", "grammar_scope": "all"})"), bad).param, "grammar_scope");
  EXPECT_EQ(parse_chat(
                with(R"({"tools": [{"type": "function", "function": {"name": "f", "strict": "yes"}}]})"), bad)
                .param,
            "tools[0].function.strict");
}

// A schema that is none must not leave the tool free.
TEST(CompletionRequest, ParametersAreAnObject) {
  const auto chat = [](const char* parameters) {
    Json body = chat_body();
    body["tools"] = Json::parse(std::string(R"([{"type": "function", "function": {"name": "f"}},
      {"type": "function", "function": {"name": "g", "parameters": )") +
                                parameters + "}}]");
    CompletionRequest request;
    return parse_chat(body, request).param;
  };
  for (const char* wrong : {"true", "\"{}\"", "[]", "5"})
    EXPECT_EQ(chat(wrong), "tools[1].function.parameters") << wrong;
  for (const char* good : {"null", "{}"}) EXPECT_EQ(chat(good), "") << good;
  // By the words of their own bodies, where more tools may stand.
  const char* of_responses = R"({"input": "x", "tools": [
    {"type": "web_search"}, {"type": "function", "name": "f", "parameters": []}]})";
  const char* of_messages = R"({"max_tokens": 5, "messages": [{"role": "user", "content": "x"}],
    "tools": [{"name": "f", "input_schema": "x"}]})";
  const SamplingDefaults defaults;
  CompletionRequest responses, messages;
  EXPECT_EQ(parse_responses(of_responses, defaults, responses).param, "tools[1].parameters");
  EXPECT_EQ(parse_messages(of_messages, defaults, messages).param, "tools[0].input_schema");
}

TEST(CompletionRequest, Messages) {
  const auto error_of = [](const char* messages) {
    Json list = Json::parse(messages);
    return check_messages(list).param;
  };
  EXPECT_EQ(error_of(R"([5])"), "messages[0]");
  EXPECT_EQ(error_of(R"([{"role": "user", "content": "x"}, {"role": "x", "content": "y"}])"),
            "messages[1].role");
  EXPECT_EQ(error_of(R"([{"role": "user"}])"), "messages[0].content");
  EXPECT_EQ(error_of(R"([{"role": "user", "content": 5}])"), "messages[0].content");
  EXPECT_EQ(error_of(R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])"),
            "messages[0].content");
  Json list = Json::parse(R"([
    {"role": "developer", "content": "d"},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": null, "tool_calls": [
      {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}])");
  ASSERT_TRUE(check_messages(list).ok());
  EXPECT_EQ(list[0]["role"], "system");
  EXPECT_EQ(list[1]["content"], "ab");
  EXPECT_EQ(list[2]["tool_calls"][0]["function"]["arguments"]["x"], 1);
}

TEST(CompletionRequest, Prompts) {
  const auto parse = [](const char* prompt, CompletionRequest& out) {
    return parse_completion(std::string("{\"prompt\": ") + prompt + "}", ApiKind::kCompletion,
                            SamplingDefaults(), out);
  };
  for (const auto& [text, n] : {std::pair<const char*, size_t>{"\"a\"", 1},
                                {"[\"a\", \"b\"]", 2},
                                {"[1, 2]", 1},
                                {"[[1], [2, 3]]", 2},
                                {"[\"a\", [2, 3]]", 2}}) {
    CompletionRequest request;
    ASSERT_TRUE(parse(text, request).ok()) << text;
    EXPECT_EQ(request.prompts.size(), n) << text;
    EXPECT_EQ(request.generate.max_tokens, 16);
  }
  for (const char* text :
       {"null", "[]", "5", "{}", "[null]", "[[\"a\"]]", "[-1]", "[1.5]", "[99999999999]", "[[]]"}) {
    CompletionRequest request;
    EXPECT_EQ(parse(text, request).param, "prompt") << text;
  }
}

TEST(CompletionRequest, BodiesThatAreNone) {
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("\xff"), std::string(100000, '['),
        std::string("{\"a\": \"\xff\"}"), std::string("nul")}) {
    CompletionRequest request;
    const ApiError error = parse_completion(body, ApiKind::kChat, SamplingDefaults(), request);
    EXPECT_EQ(error.http, 400);
    EXPECT_FALSE(error.ok());
    EXPECT_FALSE(Json::parse(error.to_json())["error"]["message"].get<std::string>().empty());
  }
}

TEST(JsonFields, NestingLimit) {
  EXPECT_FALSE(nested_too_deep(std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']')));
  EXPECT_TRUE(nested_too_deep(std::string(kMaxJsonDepth + 1, '[')));
  EXPECT_FALSE(nested_too_deep("{\"a\": \"" + std::string(1000, '[') + "\\\"\"}"));
}

}  // namespace
}  // namespace dspark
