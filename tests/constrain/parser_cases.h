#pragma once
// Answers and what a parser must find in them.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "constrain/output_parser.h"

namespace dspark {

/// Parameters of the tool "write": one of every type.
inline constexpr const char* kWriteSchema = R"({"type": "object", "properties": {
  "path": {"type": "string"}, "text": {"type": "string"}, "line": {"type": "integer"}, "ratio": {"type": "number"},
  "force": {"type": "boolean"}, "tags": {"type": "array", "items": {"type": "string"}}, "meta": {"$ref": "#/$defs/meta"},
  "mode": {"enum": ["1", "2"]}, "level": {"enum": [1, 2]}, "note": {"type": ["string", "null"]},
  "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "id": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
  "any": {}}, "$defs": {"meta": {"type": "object"}}})";

struct Case {
  const char* name;
  ToolFormat tools;
  bool has_reasoning;
  bool in_reasoning;
  std::string text;
  std::string content, reasoning;
  std::vector<ParsedOutput::Call> calls;
  ReasoningFormat reasoning_format = ReasoningFormat::kThink;
  int32_t max_calls = -1;
};

inline OutputParser::Options options_of(const Case& c) {
  OutputParser::Options options;
  options.format = {c.tools, c.has_reasoning, c.reasoning_format};
  options.in_reasoning = c.in_reasoning;
  options.max_calls = c.max_calls;
  options.tools = {{"get_weather", ""}, {"add", ""}, {"python", ""}, {"f", ""}, {"write", kWriteSchema}};
  return options;
}

inline ParsedOutput parse_pieces(const Case& c, const std::vector<std::string>& pieces) {
  OutputParser parser(options_of(c));
  std::vector<OutputEvent> events;
  for (const std::string& piece : pieces) parser.feed(piece, events);
  parser.finish(events);
  ParsedOutput parsed;
  for (const OutputEvent& event : events) {
    switch (event.kind) {
      case OutputEvent::Kind::kContent:
        parsed.content += event.text;
        break;
      case OutputEvent::Kind::kReasoning:
        parsed.reasoning += event.text;
        break;
      case OutputEvent::Kind::kToolCall:
        EXPECT_EQ(event.call, static_cast<int32_t>(parsed.calls.size())) << c.name;
        parsed.calls.push_back({event.text, "", false});
        break;
      case OutputEvent::Kind::kToolArguments:
        EXPECT_EQ(event.call + 1, static_cast<int32_t>(parsed.calls.size())) << c.name;
        parsed.calls.back().arguments += event.text;
        break;
      case OutputEvent::Kind::kToolCallEnd:
        parsed.calls.back().complete = true;
        break;
    }
  }
  EXPECT_EQ(parser.n_calls(), static_cast<int32_t>(parsed.calls.size()));
  return parsed;
}

inline void expect_parsed(const Case& c, const ParsedOutput& parsed, const std::string& how) {
  EXPECT_EQ(parsed.content, c.content) << c.name << " " << how;
  EXPECT_EQ(parsed.reasoning, c.reasoning) << c.name << " " << how;
  ASSERT_EQ(parsed.calls.size(), c.calls.size()) << c.name << " " << how;
  for (size_t i = 0; i < c.calls.size(); ++i) {
    EXPECT_EQ(parsed.calls[i].name, c.calls[i].name) << c.name << " " << how;
    EXPECT_EQ(parsed.calls[i].arguments, c.calls[i].arguments) << c.name << " " << how;
    EXPECT_EQ(parsed.calls[i].complete, c.calls[i].complete) << c.name << " " << how;
  }
}

/// The same in two pieces, cut everywhere, and byte by byte.
inline void expect_cuts_do_not_matter(const Case& c) {
  for (size_t i = 1; i < c.text.size(); ++i) {
    expect_parsed(c, parse_pieces(c, {c.text.substr(0, i), c.text.substr(i)}), "cut at " + std::to_string(i));
  }
  std::vector<std::string> bytes;
  for (char byte : c.text) bytes.emplace_back(1, byte);
  expect_parsed(c, parse_pieces(c, bytes), "byte by byte");
}

}  // namespace dspark
