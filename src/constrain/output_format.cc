#include "constrain/output_format.h"

namespace dspark {
const char* tool_format_name(ToolFormat format) {
  switch (format) {
    case ToolFormat::kNone:
      return "none";
    case ToolFormat::kHermes:
      return "hermes";
    case ToolFormat::kLlama3:
      return "llama3";
    case ToolFormat::kGemma:
      return "gemma";
    case ToolFormat::kDeepSeek:
      return "deepseek";
    case ToolFormat::kDeepSeekR1:
      return "deepseek-r1";
    case ToolFormat::kDeepSeekV32:
      return "deepseek-v3.2";
    case ToolFormat::kDeepSeekV4:
      return "deepseek-v4";
    case ToolFormat::kQwenXml:
      return "qwen-xml";
    case ToolFormat::kGemma4:
      return "gemma4";
  }
  return "none";
}

OutputFormat detect_output_format(std::string_view chat_template) {
  const auto has = [&](std::string_view text) { return chat_template.find(text) != std::string_view::npos; };
  OutputFormat format;
  format.has_reasoning = has("<think>") || has("</think>");
  if (has("<|tool_call>call:")) {
    if (has("<|channel>")) format = {ToolFormat::kNone, true, ReasoningFormat::kChannel};
    format.tools = ToolFormat::kGemma4;
    return format;
  }
  if (has("｜DSML｜")) {
    format.tools = has("function_calls>") ? ToolFormat::kDeepSeekV32 : ToolFormat::kDeepSeekV4;
    return format;
  }
  if (has("<function=")) {
    if (has("<parameter=")) format.tools = ToolFormat::kQwenXml;
    return format;
  }
  if (has("<｜tool▁calls▁begin｜>")) {
    format.tools = has("```json") ? ToolFormat::kDeepSeekR1 : ToolFormat::kDeepSeek;
  } else if (has("<tool_call>")) {
    format.tools = ToolFormat::kHermes;
  } else if (has("<|start_header_id|>")) {
    format.tools = ToolFormat::kLlama3;
  } else if (has("<start_of_turn>")) {
    format.tools = ToolFormat::kGemma;
  } else if (has("<|im_start|>")) {
    format.tools = ToolFormat::kHermes;
  }
  return format;
}

ReasoningTags reasoning_tags(ReasoningFormat format) {
  if (format == ReasoningFormat::kChannel) return {"<|channel>thought", "<channel|>"};
  return {"<think>", "</think>"};
}

ReasoningStart reasoning_start(const OutputFormat& format, std::string_view prompt) {
  if (!format.has_reasoning) return ReasoningStart::kNone;
  while (!prompt.empty() && (prompt.back() == '\n' || prompt.back() == ' ')) prompt.remove_suffix(1);
  const ReasoningTags tags = reasoning_tags(format.reasoning);
  if (prompt.ends_with(tags.begin)) return ReasoningStart::kOpen;
  return prompt.ends_with(tags.end) ? ReasoningStart::kNone : ReasoningStart::kMaybe;
}

std::vector<std::string> marker_texts(ToolFormat format) {
  switch (format) {
    case ToolFormat::kHermes:
    case ToolFormat::kQwenXml:
      return {"<think>", "</think>", "<tool_call>", "</tool_call>"};
    case ToolFormat::kDeepSeekV32:
    case ToolFormat::kDeepSeekV4:
      return {"<think>", "</think>", "｜DSML｜"};
    case ToolFormat::kGemma4:
      return {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|\"|>"};
    case ToolFormat::kLlama3:
      return {"<think>", "</think>", "<|python_tag|>"};
    case ToolFormat::kDeepSeek:
    case ToolFormat::kDeepSeekR1:
      return {"<think>",
              "</think>",
              "<｜tool▁calls▁begin｜>",
              "<｜tool▁calls▁end｜>",
              "<｜tool▁call▁begin｜>",
              "<｜tool▁call▁end｜>",
              "<｜tool▁sep｜>"};
    default:
      return {"<think>", "</think>"};
  }
}

}  // namespace dspark
