// Any bytes as an answer, cut anywhere: no crash, and the cuts change nothing.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "constrain/output_parser.h"

namespace {

constexpr const char* kSchema =
    R"({"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "integer"}}})";

struct Joined {
  std::string content, reasoning, calls;
  bool operator==(const Joined&) const = default;
};

Joined join(const std::vector<dspark::OutputEvent>& events) {
  Joined joined;
  for (const dspark::OutputEvent& event : events) {
    switch (event.kind) {
      case dspark::OutputEvent::Kind::kContent:
        joined.content += event.text;
        break;
      case dspark::OutputEvent::Kind::kReasoning:
        joined.reasoning += event.text;
        break;
      case dspark::OutputEvent::Kind::kToolCall:
        joined.calls += "|" + event.text + ":";
        break;
      case dspark::OutputEvent::Kind::kToolArguments:
        joined.calls += event.text;
        break;
      case dspark::OutputEvent::Kind::kToolCallEnd:
        joined.calls += ";";
        break;
    }
  }
  return joined;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  dspark::OutputParser::Options options;
  const int tools = (data[0] & 31) % (static_cast<int>(dspark::ToolFormat::kGemma4) + 1);
  options.format = {static_cast<dspark::ToolFormat>(tools), (data[0] & 64) != 0,
                    static_cast<dspark::ReasoningFormat>((data[0] >> 4) & 1)};
  options.in_reasoning = (data[0] & 128) != 0;
  if ((data[0] & 32) != 0) options.tools = {{"f", kSchema}};
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t cut = data[1] % (text.size() + 1);
  std::vector<dspark::OutputEvent> whole, pieces;
  dspark::OutputParser first(options), second(options);
  first.feed(text, whole);
  first.finish(whole);
  second.feed(text.substr(0, cut), pieces);
  for (char byte : text.substr(cut)) second.feed(std::string_view(&byte, 1), pieces);
  second.finish(pieces);
  if (join(whole) != join(pieces)) __builtin_trap();
  return 0;
}
