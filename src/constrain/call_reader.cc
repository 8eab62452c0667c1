#include "constrain/call_reader.h"

namespace dspark {

const std::vector<std::string_view>& call_markers(ToolFormat format) {
  static const std::vector<std::string_view> hermes = {"<tool_call>"}, gemma = {"```"},
                                             deepseek = {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"};
  switch (format) {
    case ToolFormat::kHermes:
      return hermes;
    case ToolFormat::kGemma:
      return gemma;
    case ToolFormat::kDeepSeek:
    case ToolFormat::kDeepSeekR1:
      return deepseek;
    default:
      return block_markers(format);
  }
}

const std::vector<std::string_view>& block_markers(ToolFormat format) {
  // The tag of a single call too: models forget the one around it.
  static const std::vector<std::string_view> none,
      qwen = {"<tool_call>", "<function="},
      dsml = {"<｜DSML｜function_calls>", "<｜DSML｜tool_calls>", "<｜DSML｜invoke name=\""},
      gemma = {"<|tool_call>"};
  switch (format) {
    case ToolFormat::kQwenXml:
      return qwen;
    case ToolFormat::kDeepSeekV32:
    case ToolFormat::kDeepSeekV4:
      return dsml;
    case ToolFormat::kGemma4:
      return gemma;
    default:
      return none;
  }
}

std::unique_ptr<CallReader> make_call_reader(ToolFormat format, const std::vector<ToolDescription>& tools) {
  if (format == ToolFormat::kGemma4) return make_gemma4_reader();
  return make_tag_reader(format != ToolFormat::kQwenXml, tools);
}

}  // namespace dspark
