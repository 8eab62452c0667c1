#include "text/json_steps.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "text/json_fields.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr const char* kSpaceMark = "\xE2\x96\x81";

Status unknown(const char* part, const std::string& type, const char* known) {
  return unsupported(std::string(part) + ": unknown type '" + type + "'; known: " + known);
}

// {"String": "..."} or {"Regex": "..."}; one of the two is set.
struct Pattern {
  std::optional<std::string> text;
  std::optional<std::string> regex;
};

Result<Pattern> read_pattern(const json& node, const char* part) {
  Pattern out;
  const json* pattern = json_member(node, "pattern");
  if (pattern != nullptr && pattern->is_object()) {
    out.text = json_string(*pattern, "String");
    out.regex = json_string(*pattern, "Regex");
  }
  const bool usable = out.regex || (out.text && !out.text->empty());
  if (!usable)
    return corrupt_data(std::string(part) + ".pattern: expected {\"String\": ...} or {\"Regex\": ...}");
  return out;
}

Result<Regex> compile_pattern(const Pattern& pattern, const char* part) {
  Result<Regex> regex = pattern.regex ? Regex::compile(*pattern.regex) : Regex::literal(*pattern.text);
  if (regex.ok()) return regex;
  return Status(regex.status().code(), std::string(part) + ".pattern: " + regex.status().message());
}

Status read_replace(const json& node, TokenizerSpec& spec) {
  DSPARK_ASSIGN_OR_RETURN(const Pattern pattern, read_pattern(node, "normalizer"));
  const auto content = json_string(node, "content");
  if (!content) return corrupt_data("normalizer.content: expected a string");
  if (pattern.text) {
    spec.normalizer.add_replace(*pattern.text, *content);
    if (*content == kSpaceMark) spec.coding = PieceCoding::kSpaceMarker;
    return ok_status();
  }
  DSPARK_ASSIGN_OR_RETURN(Regex regex, compile_pattern(pattern, "normalizer"));
  spec.normalizer.add_replace(std::move(regex), *content);
  return ok_status();
}

// Elements of a "Sequence" under `list`, or nullptr.
const json* sequence(const json& node, const char* list) {
  const json* elements = json_member(node, list);
  return elements != nullptr && elements->is_array() ? elements : nullptr;
}

Result<PreTokenizer::Behavior> read_behavior(const json& node) {
  const std::string name = json_string(node, "behavior").value_or("");
  if (name == "Removed") return PreTokenizer::Behavior::kRemoved;
  if (name == "Isolated") return PreTokenizer::Behavior::kIsolated;
  if (name == "MergedWithPrevious") return PreTokenizer::Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return PreTokenizer::Behavior::kMergedWithNext;
  if (name == "Contiguous") return PreTokenizer::Behavior::kContiguous;
  return corrupt_data("pre_tokenizer.behavior: unknown value '" + name + "'");
}

Status read_split(const json& node, TokenizerSpec& spec) {
  DSPARK_ASSIGN_OR_RETURN(const Pattern pattern, read_pattern(node, "pre_tokenizer"));
  DSPARK_ASSIGN_OR_RETURN(const PreTokenizer::Behavior behavior, read_behavior(node));
  DSPARK_ASSIGN_OR_RETURN(Regex regex, compile_pattern(pattern, "pre_tokenizer"));
  spec.pre_tokenizer.add_split(std::move(regex), behavior, json_bool(node, "invert").value_or(false));
  return ok_status();
}

Status read_byte_level(const json& node, TokenizerSpec& spec) {
  spec.coding = PieceCoding::kByteLevel;
  if (json_bool(node, "add_prefix_space").value_or(true)) {
    // It goes before every word of the steps so far: with such steps that is more than one prefix.
    if (!spec.pre_tokenizer.empty()) {
      return unsupported("pre_tokenizer.ByteLevel: add_prefix_space after another step");
    }
    spec.normalizer.add_prefix(" ", true);
  }
  if (!json_bool(node, "use_regex").value_or(true)) return ok_status();
  DSPARK_ASSIGN_OR_RETURN(PreTokenizer gpt2, PreTokenizer::named("gpt-2"));
  spec.pre_tokenizer.append(std::move(gpt2));
  return ok_status();
}

Status read_metaspace(const json& node, TokenizerSpec& spec) {
  spec.coding = PieceCoding::kSpaceMarker;
  const std::string mark = json_string(node, "replacement").value_or(kSpaceMark);
  if (mark != kSpaceMark) return unsupported("pre_tokenizer.Metaspace: replacement '" + mark + "'");
  spec.normalizer.add_replace(" ", mark);
  std::string scheme = json_bool(node, "add_prefix_space").value_or(true) ? "always" : "never";
  scheme = json_string(node, "prepend_scheme").value_or(scheme);
  if (scheme == "always") spec.normalizer.add_prefix(mark, true);
  if (scheme == "first") spec.prefix_space_first = true;
  if (!json_bool(node, "split").value_or(true)) return ok_status();
  DSPARK_ASSIGN_OR_RETURN(Regex regex, Regex::literal(mark));
  spec.pre_tokenizer.add_split(std::move(regex), PreTokenizer::Behavior::kMergedWithNext, false);
  return ok_status();
}

Status read_template(const json& node, TokenizerSpec& spec) {
  const json* single = sequence(node, "single");
  const json* tokens = json_member(node, "special_tokens");
  if (single == nullptr || tokens == nullptr || !tokens->is_object()) {
    return corrupt_data("post_processor.TemplateProcessing: expected 'single' and 'special_tokens'");
  }
  bool after_text = false;
  for (const json& part : *single) {
    if (json_member(part, "Sequence") != nullptr) {
      after_text = true;
      continue;
    }
    const json* special = json_member(part, "SpecialToken");
    const std::string name = special == nullptr ? "" : json_string(*special, "id").value_or("");
    const json* entry = json_member(*tokens, name.c_str());
    const json* ids = entry == nullptr ? nullptr : sequence(*entry, "ids");
    if (ids == nullptr) return corrupt_data("post_processor.special_tokens: no ids for '" + name + "'");
    for (const json& id : *ids) {
      DSPARK_ASSIGN_OR_RETURN(const int32_t value,
                              json_token_id(id, spec.vocab, "post_processor.special_tokens"));
      (after_text ? spec.suffix_ids : spec.prefix_ids).push_back(value);
    }
  }
  return ok_status();
}

// ["<s>", 0] of BertProcessing and RobertaProcessing.
Status read_pair_token(const json& node, const char* key, TokenizerSpec& spec, std::vector<int32_t>& out) {
  const json* pair = sequence(node, key);
  if (pair == nullptr || pair->size() != 2) {
    return corrupt_data("post_processor." + std::string(key) + ": expected [text, id]");
  }
  DSPARK_ASSIGN_OR_RETURN(const int32_t id, json_token_id((*pair)[1], spec.vocab, "post_processor"));
  out.push_back(id);
  return ok_status();
}

}  // namespace

Status read_json_normalizer(const json& node, TokenizerSpec& spec) {
  if (node.is_null()) return ok_status();
  const std::string type = json_string(node, "type").value_or("");
  if (const json* list = sequence(node, "normalizers"); type == "Sequence" && list != nullptr) {
    for (const json& element : *list) DSPARK_RETURN_IF_ERROR(read_json_normalizer(element, spec));
    return ok_status();
  }
  if (type == "NFC") {
    spec.normalizer.add_form(Normalizer::Form::kNfc);
  } else if (type == "NFD") {
    spec.normalizer.add_form(Normalizer::Form::kNfd);
  } else if (type == "NFKC") {
    spec.normalizer.add_form(Normalizer::Form::kNfkc);
  } else if (type == "NFKD") {
    spec.normalizer.add_form(Normalizer::Form::kNfkd);
  } else if (type == "Replace") {
    return read_replace(node, spec);
  } else if (type == "Prepend") {
    spec.normalizer.add_prefix(json_string(node, "prepend").value_or(""), false);
  } else {
    return unknown("normalizer", type, "Sequence NFC NFD NFKC NFKD Replace Prepend");
  }
  return ok_status();
}

Status read_json_pre_tokenizer(const json& node, TokenizerSpec& spec) {
  if (node.is_null()) return ok_status();
  const std::string type = json_string(node, "type").value_or("");
  if (const json* list = sequence(node, "pretokenizers"); type == "Sequence" && list != nullptr) {
    for (const json& element : *list) DSPARK_RETURN_IF_ERROR(read_json_pre_tokenizer(element, spec));
    return ok_status();
  }
  if (type == "ByteLevel") return read_byte_level(node, spec);
  if (type == "Split") return read_split(node, spec);
  if (type == "Metaspace") return read_metaspace(node, spec);
  if (type == "Digits") {
    spec.pre_tokenizer.add_digits(json_bool(node, "individual_digits").value_or(false));
    return ok_status();
  }
  return unknown("pre_tokenizer", type, "Sequence ByteLevel Split Digits Metaspace");
}

Status read_json_decoder(const json& node, TokenizerSpec& spec) {
  if (node.is_null()) return ok_status();
  const std::string type = json_string(node, "type").value_or("");
  if (const json* list = sequence(node, "decoders"); type == "Sequence" && list != nullptr) {
    for (const json& element : *list) DSPARK_RETURN_IF_ERROR(read_json_decoder(element, spec));
    return ok_status();
  }
  if (type == "ByteLevel") {
    spec.coding = PieceCoding::kByteLevel;
  } else if (type == "Metaspace") {
    spec.coding = PieceCoding::kSpaceMarker;
    spec.strip_leading_space = json_string(node, "prepend_scheme").value_or("always") != "never";
  } else if (type == "Replace") {
    const json* pattern = json_member(node, "pattern");
    const auto from = pattern == nullptr ? std::nullopt : json_string(*pattern, "String");
    const auto to = json_string(node, "content");
    if (from != kSpaceMark || to != " ")
      return unsupported("decoder.Replace: only U+2581 by a space is known");
    spec.coding = PieceCoding::kSpaceMarker;
  } else if (type == "Strip") {
    const json* start = json_member(node, "start");
    spec.strip_leading_space = start != nullptr && start->is_number_integer() && start->get<int64_t>() > 0;
  } else if (type != "ByteFallback" && type != "Fuse") {
    return unknown("decoder", type, "Sequence ByteLevel Metaspace Replace Strip ByteFallback Fuse");
  }
  return ok_status();
}

Status read_json_post_processor(const json& node, TokenizerSpec& spec) {
  if (node.is_null()) return ok_status();
  const std::string type = json_string(node, "type").value_or("");
  if (const json* list = sequence(node, "processors"); type == "Sequence" && list != nullptr) {
    for (const json& element : *list) DSPARK_RETURN_IF_ERROR(read_json_post_processor(element, spec));
    return ok_status();
  }
  if (type == "ByteLevel") return ok_status();
  if (type == "TemplateProcessing") return read_template(node, spec);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    DSPARK_RETURN_IF_ERROR(read_pair_token(node, "cls", spec, spec.prefix_ids));
    return read_pair_token(node, "sep", spec, spec.suffix_ids);
  }
  return unknown("post_processor", type,
                 "Sequence ByteLevel TemplateProcessing BertProcessing RobertaProcessing");
}

}  // namespace dspark
