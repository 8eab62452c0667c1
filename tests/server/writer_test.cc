// Answers: JSON of whole ones and of chunks, events of streams, errors, metrics' text.
#include "server/completion_writer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>

#include "server/answer_stream.h"
#include "server/api_error.h"
#include "server/metrics.h"
#include "server/running_call.h"
#include "server/text_offsets.h"
#include "speculate/stats.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

AnswerHead chat_head() {
  AnswerHead head;
  head.id = "chatcmpl-1";
  head.created = 5;
  head.model = "m";
  return head;
}

TokenNote note(const std::string& bytes, float logprob) {
  TokenNote out;
  out.bytes = bytes;
  out.shown = bytes;
  out.event.logprob = logprob;
  return out;
}

TEST(Writer, WholeChat) {
  AnswerPiece piece;
  piece.text = "hi";
  piece.finish_reason = "stop";
  UsageCounts usage;
  usage.prompt_tokens = 3;
  usage.completion_tokens = 2;
  usage.drafted = 5;
  usage.verified = 4;
  usage.trimmed = 1;
  usage.accepted = 1;
  const Json answer = Json::parse(write_whole(chat_head(), {piece}, usage));
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "hi");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["usage"]["total_tokens"], 5);
  EXPECT_EQ(answer["usage"]["speculation"]["trimmed"], 1);
  EXPECT_FALSE(answer.contains("dspark"));
}

TEST(Writer, LogprobsOfPartsOfCharactersAndOfNothing) {
  AnswerHead head = chat_head();
  head.logprobs = true;
  AnswerPiece piece;
  piece.tokens = {note("\xc3", -0.5f), note("\xa4", -INFINITY)};
  piece.tokens[0].top = {{"\xc3", -0.5f}, {"x", -1.0f}};
  const Json choice = Json::parse(write_whole(head, {piece}, UsageCounts()))["choices"][0];
  const Json& content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["bytes"], Json::array({0xc3}));
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_TRUE(content[1]["logprob"].is_number());
}

TEST(Writer, CompletionsNameTokensByTheirBytesAndTellTheirPlaces) {
  AnswerHead head = chat_head();
  head.kind = ApiKind::kCompletion;
  head.logprobs = true;
  AnswerPiece piece;
  piece.tokens = {note("a", -0.5f), note("\xe4\xb8", -1.0f)};
  piece.tokens[1].text_offset = 1;
  piece.tokens[1].top = {{"\xe4\xb8", -1.0f}, {"\xe5", -2.0f}, {"\xc3\xa4", -3.0f}, {"\xe5", -4.0f}};
  const Json logprobs = Json::parse(write_whole(head, {piece}, UsageCounts()))["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json::array({"a", "bytes:\\xe4\\xb8"}));
  EXPECT_EQ(logprobs["text_offset"], Json::array({0, 1}));
  const Json& top = logprobs["top_logprobs"][1];
  ASSERT_EQ(top.size(), 3u) << top.dump();
  EXPECT_EQ(top["bytes:\\xe4\\xb8"], -1.0);
  EXPECT_EQ(top["bytes:\\xe5"], -2.0);  // of two that spell the same the likelier one
  EXPECT_EQ(top["\xc3\xa4"], -3.0);
}

TEST(TextOffsets, CountCharactersAsClientsReadThem) {
  const auto offsets = [](const std::vector<std::string>& tokens) {
    TextOffsets places;
    std::vector<int64_t> out;
    for (const std::string& token : tokens) out.push_back(places.add(token));
    return out;
  };
  using List = std::vector<int64_t>;
  EXPECT_EQ(offsets({"ab", "",
                     "\xc3\xa4"
                     "c",
                     "d"}),
            (List{0, 2, 2, 4}));
  // Parts of one character, then what follows it.
  EXPECT_EQ(offsets({"a", "\xe4",
                     "\xb8\xad"
                     "b",
                     "c"}),
            (List{0, 1, 1, 3}));
  // Bytes that become no character are one U+FFFD each time.
  EXPECT_EQ(offsets({"\xe4\xb8", "a", "\xff", "b"}), (List{0, 1, 2, 3}));
}

TEST(Writer, UsageIsNullUntilItIsTold) {
  AnswerPiece piece;
  piece.text = "a";
  for (const ApiKind kind : {ApiKind::kChat, ApiKind::kCompletion}) {
    AnswerHead head = chat_head();
    head.kind = kind;
    EXPECT_FALSE(Json::parse(write_chunk(head, piece)).contains("usage"));
    head.include_usage = true;
    const Json chunk = Json::parse(write_chunk(head, piece));
    ASSERT_TRUE(chunk.contains("usage"));
    EXPECT_TRUE(chunk["usage"].is_null());
    EXPECT_TRUE(Json::parse(write_usage_chunk(head, UsageCounts()))["usage"].is_object());
  }
}

TEST(Writer, StreamOfAChat) {
  const auto stream = make_answer_stream(chat_head());
  AnswerPiece first, last;
  first.is_first = true;
  first.text = "a\nb";
  last.text = "c";
  last.finish_reason = "length";
  const std::string bytes = stream->piece(first) + stream->piece(last) + stream->end(UsageCounts(), true);
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = bytes.find("\n\n", at);
    ASSERT_NE(end, std::string::npos);
    const std::string event = bytes.substr(at, end - at);
    ASSERT_EQ(event.substr(0, 6), "data: ");
    // A line break inside of an event would end it early.
    EXPECT_EQ(event.find('\n'), std::string::npos);
    events.push_back(event.substr(6));
    at = end + 2;
  }
  ASSERT_EQ(events.size(), 4u);
  const Json chunk = Json::parse(events[0]);
  EXPECT_EQ(chunk["object"], "chat.completion.chunk");
  EXPECT_EQ(chunk["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(chunk["choices"][0]["delta"]["content"], "a\nb");
  EXPECT_TRUE(chunk["choices"][0]["finish_reason"].is_null());
  EXPECT_EQ(Json::parse(events[1])["choices"][0]["finish_reason"], "length");
  EXPECT_FALSE(Json::parse(events[1])["choices"][0]["delta"].contains("role"));
  EXPECT_EQ(Json::parse(events[2])["choices"], Json::array());
  EXPECT_TRUE(Json::parse(events[2]).contains("usage"));
  EXPECT_EQ(events[3], "[DONE]");
}

TEST(Writer, ToolCallsInPieces) {
  AnswerPiece sum, more;
  sum.tool_calls = {{0, "id1", "f", "{\"x\""}};
  more.tool_calls = {{0, "", "", ": 1}"}, {1, "id2", "g", "{}"}};
  more.finish_reason = "tool_calls";
  join_pieces(sum, more);
  ASSERT_EQ(sum.tool_calls.size(), 2u);
  EXPECT_EQ(sum.tool_calls[0].arguments, "{\"x\": 1}");
  const Json message = Json::parse(write_whole(chat_head(), {sum}, UsageCounts()))["choices"][0]["message"];
  EXPECT_TRUE(message["content"].is_null());
  EXPECT_EQ(message["tool_calls"][1]["function"]["name"], "g");
  EXPECT_EQ(message["tool_calls"][0]["type"], "function");
}

TEST(Writer, TraceTellsProbabilitiesByTheirNames) {
  AnswerHead head = chat_head();
  head.trace = true;
  AnswerPiece piece;
  piece.text = "ab";
  piece.tokens = {note("a", std::log(0.25f)), note("b", std::log(0.5f))};
  piece.tokens[0].event.origin = TokenOrigin::kAccepted;
  piece.tokens[0].event.draft_idx = 0;
  piece.tokens[0].draft_probability = 0.75f;
  piece.tokens[0].confidence = 0.5f;
  piece.tokens[0].source = "model";
  const Json chunk = Json::parse(write_chunk(head, piece));
  const Json& tokens = chunk["dspark"]["tokens"];
  EXPECT_FLOAT_EQ(tokens[0]["draft_probability"].get<float>(), 0.75f);
  EXPECT_FLOAT_EQ(tokens[0]["target_probability"].get<float>(), 0.25f);
  EXPECT_FLOAT_EQ(tokens[0]["confidence"].get<float>(), 0.5f);
  EXPECT_FALSE(tokens[1].contains("draft_probability"));
  EXPECT_FALSE(tokens[1].contains("source"));
  EXPECT_TRUE(tokens[1]["confidence"].is_null());
}

/// What each of the tokens shows after one update after the other; "|" between updates.
std::string traced(const std::vector<std::vector<std::string>>& updates,
                   const OutputParser::Options& options) {
  OutputParser parser(options);
  TraceText trace;
  std::string out;
  for (size_t i = 0; i < updates.size(); ++i) {
    std::vector<TokenNote> tokens, shown;
    std::string text;
    for (const std::string& bytes : updates[i]) {
      tokens.push_back(note(bytes, 0.0f));
      tokens.back().shown.clear();
      text += bytes;
    }
    std::vector<OutputEvent> events;
    parser.feed(text, events);
    if (i + 1 == updates.size()) parser.finish(events);
    trace.share(text, events, i + 1 == updates.size(), tokens, shown);
    for (const TokenNote& token : shown) out += "[" + token.shown + "]";
    out += "|";
  }
  return out;
}

TEST(Trace, TagsAndCallsAreNoText) {
  OutputParser::Options options;
  options.format = {ToolFormat::kHermes, true, ReasoningFormat::kThink};
  EXPECT_EQ(traced({{"<th", "ink>\n", "so"}, {" it", " is\n</", "think>\n\nYes"}, {"."}}, options),
            "[][][so]|[ it][ is][Yes]|[.]|");
  // What may begin a tag waits, with its token when that is all it has.
  EXPECT_EQ(traced({{"a", " <"}, {"b", "c<"}, {"d"}}, options), "[a]|[ <][b][c]|[<d]|");
  EXPECT_EQ(
      traced({{"Look:", "\n"}, {"<tool_call>"}, {"{\"name\": \"f\", \"arguments\": {}}", "</tool_call>"}},
             options),
      "[Look:]||[][][][]|");
  EXPECT_EQ(traced({{"a", "bc"}, {"d"}}, {}), "[a][bc]|[d]|");
}

TEST(ApiErrors, Shape) {
  const Json error = Json::parse(bad_field("top_p", "want less \xff").to_json())["error"];
  EXPECT_EQ(error["param"], "top_p");
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_TRUE(error["code"].is_null());
  EXPECT_EQ(from_status(invalid_argument("max_tokens: want more")).param, "max_tokens");
  EXPECT_EQ(from_status(invalid_argument("Some sentence: with a colon")).param, "");
  EXPECT_EQ(from_status(invalid_argument("x")).http, 400);
  EXPECT_EQ(from_status(unsupported("x")).http, 501);
  EXPECT_EQ(from_status(resource_exhausted("x")).http, 429);
  EXPECT_GE(from_status(resource_exhausted("x")).retry_after, 0);
  EXPECT_EQ(from_status(internal_error("x")).http, 500);
}

TEST(ApiErrors, FieldsOfTheEngineHaveTheNamesOfTheInterface) {
  const auto told = [](const char* message, ApiKind kind) {
    const ApiError error = error_of_submit(invalid_argument(message), kind);
    EXPECT_EQ(error.http, 400);
    EXPECT_TRUE(error.message.starts_with(error.param + ": ")) << error.message;
    return error.param;
  };
  EXPECT_EQ(told("n_logprobs: want less", ApiKind::kChat), "top_logprobs");
  EXPECT_EQ(told("n_logprobs: want less", ApiKind::kCompletion), "logprobs");
  EXPECT_EQ(told("stop_strings[2]: want more", ApiKind::kChat), "stop");
  EXPECT_EQ(told("stop_strings: want more", ApiKind::kMessages), "stop_sequences");
  EXPECT_EQ(told("max_drafts: want more", ApiKind::kChat), "speculation.max_draft");
  EXPECT_EQ(told("max_tokens: want more", ApiKind::kResponses), "max_output_tokens");
  EXPECT_EQ(told("prompt[3]: want less", ApiKind::kCompletion), "prompt[3]");
  EXPECT_EQ(told("prompt[3]: want less", ApiKind::kMessages), "messages");
  EXPECT_EQ(told("logit_bias: want less", ApiKind::kChat), "logit_bias");
  const ApiError full = error_of_submit(resource_exhausted("no room"), ApiKind::kChat);
  EXPECT_EQ(full.http, 429);
  EXPECT_EQ(full.param, "");
}

TEST(Metrics, HistogramCountsAreCumulative) {
  const double bounds[] = {1, 2};
  Histogram histogram(bounds);
  histogram.observe(0.5);
  histogram.observe(1.0);
  histogram.observe(1.5, 3);
  histogram.observe(9);
  PrometheusText text;
  text.add("x_seconds", "Help.", {{"model_name", "a\"b"}}, histogram);
  const std::string out = text.text();
  EXPECT_NE(out.find("x_seconds_bucket{model_name=\"a\\\"b\",le=\"1\"} 2\n"), std::string::npos) << out;
  EXPECT_NE(out.find("le=\"2\"} 5\n"), std::string::npos) << out;
  EXPECT_NE(out.find("le=\"+Inf\"} 6\n"), std::string::npos) << out;
  EXPECT_NE(out.find("x_seconds_count{model_name=\"a\\\"b\"} 6\n"), std::string::npos) << out;
  EXPECT_NE(out.find("x_seconds_sum{model_name=\"a\\\"b\"} 15\n"), std::string::npos) << out;
}

TEST(Metrics, RequestsAreToldInVllmsWords) {
  RequestMetrics requests;
  GenerateStats stats;
  stats.prompt_s = 0.5;
  stats.decode_s = 3;
  stats.output_tokens = 7;
  GenerateStats one_token;
  one_token.output_tokens = 1;
  requests.finished("cancelled", 4, 100, stats);
  requests.finished("stop", 4, 50, stats);
  requests.prompt_finished(2, 7);
  requests.finished("stop", 1, 1, one_token);
  StepStats step;
  requests.stepped(step);  // without tokens: does not count
  step.prefill_rows = 5;
  step.committed_tokens = 3;
  requests.stepped(step);
  PrometheusText text;
  add_model_metrics(text, "m", EngineSnapshot(), requests.snapshot());
  const std::string out = text.text();
  for (const char* line :
       {"vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"abort\"} 1\n",
        "vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"stop\"} 2\n",
        "vllm:request_inference_time_seconds_sum{model_name=\"m\",engine=\"0\"} 7\n",
        "vllm:request_time_per_output_token_seconds_count{model_name=\"m\",engine=\"0\"} 3\n",
        "vllm:request_time_per_output_token_seconds_sum{model_name=\"m\",engine=\"0\"} 1\n",
        "vllm:request_params_n_sum{model_name=\"m\",engine=\"0\"} 2\n",
        "vllm:request_params_max_tokens_sum{model_name=\"m\",engine=\"0\"} 151\n",
        "vllm:request_max_num_generation_tokens_sum{model_name=\"m\",engine=\"0\"} 7\n",
        "vllm:iteration_tokens_total_sum{model_name=\"m\",engine=\"0\"} 8\n",
        "vllm:iteration_tokens_total_count{model_name=\"m\",engine=\"0\"} 1\n"}) {
    EXPECT_NE(out.find(line), std::string::npos) << line;
  }
  EXPECT_EQ(out.find("cancelled"), std::string::npos);
}

TEST(Metrics, TwoModelsShareFamilies) {
  PrometheusText text;
  const RequestMetrics requests;
  EngineSnapshot engine;
  engine.stats.output_tokens = 7;
  engine.stats.speculation.proposed_at[0] = 4;
  engine.stats.speculation.accepted_at[0] = 3;
  engine.verify_costs = {{1, 0.5}};
  add_model_metrics(text, "one", engine, requests.snapshot());
  add_model_metrics(text, "two", engine, requests.snapshot());
  std::istringstream lines(text.text());
  std::set<std::string> types, seen;
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# TYPE ", 0) == 0) {
      const std::string name = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_TRUE(types.insert(name).second) << name;
    } else if (line[0] != '#') {
      EXPECT_TRUE(seen.insert(line.substr(0, line.rfind(' '))).second) << line;
    }
  }
  EXPECT_TRUE(seen.count("vllm:generation_tokens_total{model_name=\"two\",engine=\"0\"}"));
  EXPECT_TRUE(
      seen.count("vllm:spec_decode_num_accepted_tokens_per_pos_total{model_name=\"one\",engine=\"0\","
                 "position=\"0\"}"));
  EXPECT_TRUE(seen.count("dspark_cost_verify_seconds{model_name=\"one\",rows=\"1\"}"));
}

/// The lines of samples as a map from the name with its labels to the value.
std::map<std::string, std::string> samples(const PrometheusText& text) {
  std::map<std::string, std::string> found;
  std::istringstream lines(text.text());
  for (std::string line; std::getline(lines, line);) {
    if (line[0] == '#') continue;
    const size_t space = line.rfind(' ');
    found[line.substr(0, space)] = line.substr(space + 1);
  }
  return found;
}

// What vLLM's dashboards ask for, with the labels they ask by.
TEST(Metrics, VllmsNamesAndLabelsAreThere) {
  const char* const plain[] = {
      "num_requests_running",
      "num_requests_waiting",
      "kv_cache_usage_perc",
      "gpu_cache_usage_perc",
      "num_preemptions_total",
      "prompt_tokens_total",
      "prompt_tokens_cached_total",
      "generation_tokens_total",
      "prefix_cache_queries_total",
      "prefix_cache_hits_total",
      "spec_decode_num_drafts_total",
      "spec_decode_num_draft_tokens_total",
      "spec_decode_num_accepted_tokens_total",
  };
  const char* const histograms[] = {
      "time_to_first_token_seconds",
      "inter_token_latency_seconds",
      "time_per_output_token_seconds",
      "request_time_per_output_token_seconds",
      "e2e_request_latency_seconds",
      "request_queue_time_seconds",
      "request_prefill_time_seconds",
      "request_decode_time_seconds",
      "request_inference_time_seconds",
      "request_prompt_tokens",
      "request_generation_tokens",
      "request_params_max_tokens",
      "request_params_n",
      "request_max_num_generation_tokens",
      "iteration_tokens_total",
  };
  RequestMetrics requests;
  requests.finished("stop", 1, 1, GenerateStats());
  EngineSnapshot engine;
  engine.stats.speculation.add(make_round_record(2, 2, 1));
  PrometheusText text;
  add_model_metrics(text, "m", engine, requests.snapshot());
  const auto found = samples(text);
  const std::string labels = "{model_name=\"m\",engine=\"0\"";
  const auto expect = [&](const std::string& name, const std::string& more) {
    EXPECT_TRUE(found.count("vllm:" + name + labels + more + "}")) << name;
  };
  for (const char* name : plain) expect(name, "");
  for (const char* histogram : histograms) {
    const std::string name = histogram;
    expect(name + "_bucket", ",le=\"+Inf\"");
    expect(name + "_sum", "");
    expect(name + "_count", "");
  }
  expect("num_requests_waiting_by_reason", ",reason=\"capacity\"");
  expect("num_requests_waiting_by_reason", ",reason=\"deferred\"");
  expect("request_success_total", ",finished_reason=\"stop\"");
  expect("spec_decode_num_accepted_tokens_per_pos_total", ",position=\"0\"");
  for (const auto& [sample, value] : found) {
    EXPECT_EQ(sample.find("engine=\"0\"") != std::string::npos, sample.rfind("vllm:", 0) == 0) << sample;
  }
}

TEST(Metrics, HelpIsSaidOfEveryFamily) {
  PrometheusText text;
  add_model_metrics(text, "m", EngineSnapshot(), RequestMetrics().snapshot());
  std::istringstream lines(text.text());
  std::set<std::string> helps;
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# HELP ", 0) != 0) continue;
    const std::string help = line.substr(line.find(' ', 7) + 1);
    EXPECT_TRUE(helps.insert(help).second) << line;
    EXPECT_GE(help.size(), 5u) << line;
  }
}

TEST(Metrics, DraftsAndPromptTokensAreCountedAsVllmDoes) {
  EngineSnapshot engine;
  engine.stats.prompt_tokens = 30;
  engine.stats.cached_tokens = 64;
  engine.load.n_waiting = 3;
  engine.load.n_pages = 8;
  engine.load.n_pages_used = 2;
  SpeculationStats& speculation = engine.stats.speculation;
  speculation.add(make_round_record(0, 0, 0));  // nothing was proposed
  speculation.add(make_round_record(7, 0, 0));  // all of it was left out
  speculation.add(make_round_record(7, 3, 2));
  speculation.add(make_round_record(7, 2, 0));
  PrometheusText text;
  add_model_metrics(text, "m", engine, RequestMetrics().snapshot());
  auto found = samples(text);
  const auto vllm = [&](const std::string& name, const std::string& more = "") {
    return found["vllm:" + name + "{model_name=\"m\",engine=\"0\"" + more + "}"];
  };
  EXPECT_EQ(vllm("spec_decode_num_drafts_total"), "2");
  EXPECT_EQ(vllm("spec_decode_num_draft_tokens_total"), "5");
  EXPECT_EQ(vllm("spec_decode_num_accepted_tokens_total"), "2");
  EXPECT_EQ(found["dspark_spec_decode_num_rounds_total{model_name=\"m\"}"], "4");
  EXPECT_EQ(found["dspark_spec_decode_num_drafted_tokens_total{model_name=\"m\"}"], "21");
  EXPECT_EQ(vllm("prompt_tokens_total"), "94");
  EXPECT_EQ(vllm("prompt_tokens_cached_total"), "64");
  EXPECT_EQ(vllm("num_requests_waiting_by_reason", ",reason=\"capacity\""), "3");
  EXPECT_EQ(vllm("num_requests_waiting_by_reason", ",reason=\"deferred\""), "0");
  EXPECT_EQ(vllm("kv_cache_usage_perc"), "0.25");
  EXPECT_EQ(vllm("gpu_cache_usage_perc"), "0.25");
}

}  // namespace
}  // namespace dspark
