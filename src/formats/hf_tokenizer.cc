#include "formats/hf_tokenizer.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "formats/error_text.h"
#include "formats/json_reader.h"

namespace dspark {
namespace {

using nlohmann::json;

// Values of tokenizer.ggml.token_type.
constexpr int32_t kNormalToken = 1;
constexpr int32_t kControlToken = 3;
constexpr int32_t kUserDefinedToken = 4;
constexpr int32_t kUnusedToken = 5;

// The split patterns by which a GGUF pre-tokeniser name is told. They are facts of the published tokenizers.
constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Member of an object, or json null.
const json& member(const json& object, const char* key) {
  static const json null;
  if (!object.is_object()) return null;
  const auto it = object.find(key);
  return it == object.end() ? null : *it;
}

bool is_type(const json& object, const char* type) {
  const json& value = member(object, "type");
  return value.is_string() && value.get_ref<const std::string&>() == type;
}

bool flag(const json& object, const char* key, bool fallback) {
  const json& value = member(object, key);
  return value.is_boolean() ? value.get<bool>() : fallback;
}

/// A Sequence of steps as a list, anything else as a list of one; empty for null.
std::vector<const json*> steps_of(const json& node, const char* list_key) {
  std::vector<const json*> steps;
  if (node.is_null()) return steps;
  const json& list = member(node, list_key);
  if (!is_type(node, "Sequence") || !list.is_array()) return {&node};
  for (const json& step : list) steps.push_back(&step);
  return steps;
}

/// Name for tokenizer.ggml.pre, or empty when the pre-tokeniser is not one of the known ones.
std::string pre_tokenizer_name(const json& tokenizer) {
  const std::vector<const json*> steps = steps_of(member(tokenizer, "pre_tokenizer"), "pretokenizers");
  if (steps.empty() || !is_type(*steps.back(), "ByteLevel")) return "";
  const json& byte_level = *steps.back();
  if (flag(byte_level, "add_prefix_space", true)) return "";
  const bool own_regex = flag(byte_level, "use_regex", true);
  if (steps.size() == 1) return own_regex ? "gpt-2" : "";
  if (steps.size() != 2) return "";
  const json& first = *steps.front();
  if (is_type(first, "Digits") && flag(first, "individual_digits", false) && own_regex) return "smollm";
  if (!is_type(first, "Split") || own_regex || flag(first, "invert", false)) return "";
  const json& regex = member(member(first, "pattern"), "Regex");
  if (!regex.is_string()) return "";
  if (regex.get_ref<const std::string&>() == kLlama3Pattern) return "llama-bpe";
  if (regex.get_ref<const std::string&>() == kQwen2Pattern) return "qwen2";
  return "";
}

/// Why tokenizer.json cannot become a GGUF "gpt2" tokenizer; empty when it can.
std::string obstacle(const json& tokenizer) {
  const json& model = member(tokenizer, "model");
  if (!is_type(model, "BPE")) return "its model is not BPE";
  if (flag(model, "byte_fallback", false)) return "it is BPE with byte fallback, not byte-level BPE";
  for (const json* step : steps_of(member(tokenizer, "normalizer"), "normalizers")) {
    if (!is_type(*step, "NFC")) return "it has a normalizer other than NFC";
  }
  const std::string pre = pre_tokenizer_name(tokenizer);
  if (pre.empty()) return "its pre-tokenizer is not one of gpt-2, smollm, llama-bpe, qwen2";
  // Readers of GGUF look whole words up in the vocabulary for llama-bpe and for no other name.
  if (flag(model, "ignore_merges", false) != (pre == "llama-bpe"))
    return "'ignore_merges' does not fit its pre-tokenizer (" + pre + ")";
  if (!member(model, "vocab").is_object() || !member(model, "merges").is_array())
    return "it has no vocabulary or no merges";
  return "";
}

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
};

class VocabularyReader {
 public:
  VocabularyReader(std::string where, int64_t size) : where_(std::move(where)) {
    vocabulary_.tokens.resize(static_cast<size_t>(size));
    vocabulary_.types.assign(static_cast<size_t>(size), kUnusedToken);
  }
  Status put(const std::string& text, const json& id, int32_t type) {
    const bool valid = id.is_number_unsigned() && id.get<uint64_t>() < vocabulary_.tokens.size();
    if (!valid) {
      return corrupt_data(fmt::format("{}: token {} has id {}, expected 0 to {} (rows of the embedding)",
                                      where_, in_quotes(text), id.dump().substr(0, 24),
                                      vocabulary_.tokens.size() - 1));
    }
    const auto i = id.get<size_t>();
    if (vocabulary_.types[i] != kUnusedToken && vocabulary_.tokens[i] != text) {
      return corrupt_data(fmt::format("{}: id {} belongs to both {} and {}", where_, i,
                                      in_quotes(vocabulary_.tokens[i]), in_quotes(text)));
    }
    vocabulary_.tokens[i] = text;
    vocabulary_.types[i] = type;
    return ok_status();
  }
  Status put_added(const json& added) {
    const json& content = member(added, "content");
    if (!content.is_string()) return corrupt_data(where_ + ": an entry of 'added_tokens' has no 'content'");
    const int32_t type = flag(added, "special", false) ? kControlToken : kUserDefinedToken;
    return put(content.get<std::string>(), member(added, "id"), type);
  }
  /// Ids nobody named are padding rows of the embedding.
  Vocabulary finish() {
    for (size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
      if (vocabulary_.types[i] == kUnusedToken) vocabulary_.tokens[i] = fmt::format("[PAD{}]", i);
    }
    return std::move(vocabulary_);
  }

 private:
  std::string where_;
  Vocabulary vocabulary_;
};

Result<Vocabulary> read_vocabulary(const json& tokenizer, const std::string& where, int64_t size) {
  VocabularyReader reader(where, size);
  for (const auto& [text, id] : member(member(tokenizer, "model"), "vocab").items()) {
    DSPARK_RETURN_IF_ERROR(reader.put(text, id, kNormalToken));
  }
  const json& added = member(tokenizer, "added_tokens");
  for (const json& entry : added.is_array() ? added : json::array()) {
    DSPARK_RETURN_IF_ERROR(reader.put_added(entry));
  }
  return reader.finish();
}

/// Merges are "a b" strings in older files and pairs in newer ones.
Result<std::vector<std::string>> read_merges(const json& tokenizer, const std::string& where) {
  std::vector<std::string> merges;
  for (const json& merge : member(member(tokenizer, "model"), "merges")) {
    if (merge.is_string()) {
      merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    } else {
      return corrupt_data(
          fmt::format("{}: merge {} is neither a string nor a pair of strings", where, merges.size()));
    }
  }
  return merges;
}

/// What the post-processor puts around a text: {before, after}.
std::pair<bool, bool> added_around(const json& tokenizer) {
  for (const json* step : steps_of(member(tokenizer, "post_processor"), "processors")) {
    const json& single = member(*step, "single");
    if (!is_type(*step, "TemplateProcessing") || !single.is_array() || single.empty()) continue;
    return {single.front().contains("SpecialToken"),
            single.size() > 1 && single.back().contains("SpecialToken")};
  }
  return {false, false};
}

/// "bos_token": "<s>" or {"content": "<s>"}; the text, or empty.
std::string special_text(const json& config, const char* key) {
  const json& value = member(config, key);
  if (value.is_string()) return value.get<std::string>();
  const json& content = member(value, "content");
  return content.is_string() ? content.get<std::string>() : "";
}

std::optional<uint32_t> valid_id(const json& value, int64_t vocab_size) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(vocab_size))
    return std::nullopt;
  return value.get<uint32_t>();
}

/// Ids of a key of generation_config.json or config.json (a number or a list), the former first.
std::vector<uint32_t> ids_of(const Checkpoint& checkpoint, const char* key, int64_t vocab_size) {
  for (const json* source : {&checkpoint.generation_config(), &checkpoint.config()}) {
    std::vector<uint32_t> ids;
    const json& value = member(*source, key);
    for (const json& id : value.is_array() ? value : json::array({value})) {
      if (const auto valid = valid_id(id, vocab_size)) ids.push_back(*valid);
    }
    if (!ids.empty()) return ids;
  }
  return {};
}

/// bos, eos, eot, unknown and padding ids: by text from tokenizer_config.json, else by number from the
/// configs.
void set_special_ids(const Checkpoint& checkpoint, const json& tokenizer_config,
                     const std::vector<std::string>& tokens, int64_t vocab_size, GgufWriter& writer) {
  const auto id_of = [&](const char* text_key, const char* id_key) -> std::optional<uint32_t> {
    const std::string text = special_text(tokenizer_config, text_key);
    for (size_t i = 0; !text.empty() && i < tokens.size(); ++i) {
      if (tokens[i] == text) return static_cast<uint32_t>(i);
    }
    const std::vector<uint32_t> ids = ids_of(checkpoint, id_key, vocab_size);
    return ids.empty() ? std::nullopt : std::optional(ids.front());
  };
  if (const auto bos = id_of("bos_token", "bos_token_id"))
    writer.set_u32("tokenizer.ggml.bos_token_id", *bos);
  if (const auto eos = id_of("eos_token", "eos_token_id")) {
    writer.set_u32("tokenizer.ggml.eos_token_id", *eos);
    for (uint32_t id : ids_of(checkpoint, "eos_token_id", vocab_size)) {
      if (id == *eos) continue;
      writer.set_u32("tokenizer.ggml.eot_token_id", id);  // GGUF has room for two ends
      break;
    }
  }
  if (const auto unk = id_of("unk_token", "unk_token_id"))
    writer.set_u32("tokenizer.ggml.unknown_token_id", *unk);
  if (const auto pad = id_of("pad_token", "pad_token_id"))
    writer.set_u32("tokenizer.ggml.padding_token_id", *pad);
}

/// chat_template.jinja wins over tokenizer_config.json, where it is a string or a list of named ones.
void set_chat_template(const std::filesystem::path& folder, const json& tokenizer_config,
                       GgufWriter& writer) {
  std::ifstream file(folder / "chat_template.jinja", std::ios::binary);
  if (file.good()) {
    writer.set_string("tokenizer.chat_template",
                      std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()));
    return;
  }
  const json& value = member(tokenizer_config, "chat_template");
  if (value.is_string()) writer.set_string("tokenizer.chat_template", value.get_ref<const std::string&>());
  if (!value.is_array()) return;
  for (const json& entry : value) {
    const json& text = member(entry, "template");
    if (member(entry, "name") == "default" && text.is_string())
      writer.set_string("tokenizer.chat_template", text.get_ref<const std::string&>());
  }
}

Status set_byte_level_bpe(const Checkpoint& checkpoint, const json& tokenizer, const json& tokenizer_config,
                          const std::string& where, int64_t vocab_size, GgufWriter& writer) {
  DSPARK_ASSIGN_OR_RETURN(const Vocabulary vocabulary, read_vocabulary(tokenizer, where, vocab_size));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<std::string> merges, read_merges(tokenizer, where));
  writer.set_string("tokenizer.ggml.model", "gpt2");
  writer.set_string("tokenizer.ggml.pre", pre_tokenizer_name(tokenizer));
  writer.set_strings("tokenizer.ggml.tokens", vocabulary.tokens);
  writer.set_i32s("tokenizer.ggml.token_type", vocabulary.types);
  writer.set_strings("tokenizer.ggml.merges", merges);
  set_special_ids(checkpoint, tokenizer_config, vocabulary.tokens, vocab_size, writer);
  auto [before, after] = added_around(tokenizer);
  if (member(tokenizer, "post_processor").is_null()) {
    before = flag(tokenizer_config, "add_bos_token", false);
    after = flag(tokenizer_config, "add_eos_token", false);
  }
  writer.set_bool("tokenizer.ggml.add_bos_token", before);
  writer.set_bool("tokenizer.ggml.add_eos_token", after);
  writer.set_bool("tokenizer.ggml.add_space_prefix", false);
  return ok_status();
}

}  // namespace

Status set_hf_tokenizer(const Checkpoint& checkpoint, int64_t vocab_size, GgufWriter& writer,
                        std::vector<std::string>& notes) {
  namespace fs = std::filesystem;
  const fs::path folder = checkpoint.folder();
  const std::string path = (folder / "tokenizer.json").string();
  std::error_code ec;
  json tokenizer;
  json tokenizer_config;
  std::string why = "there is no tokenizer.json";
  if (fs::is_regular_file(folder / "tokenizer_config.json", ec)) {
    DSPARK_ASSIGN_OR_RETURN(tokenizer_config, read_json_file((folder / "tokenizer_config.json").string()));
  }
  if (fs::is_regular_file(path, ec)) {
    DSPARK_ASSIGN_OR_RETURN(tokenizer, read_json_file(path));
    why = obstacle(tokenizer);
  }
  if (why.empty()) {
    DSPARK_RETURN_IF_ERROR(
        set_byte_level_bpe(checkpoint, tokenizer, tokenizer_config, path, vocab_size, writer));
  } else {
    writer.set_string("tokenizer.ggml.model", "no_vocab");
    set_special_ids(checkpoint, json(), {}, vocab_size, writer);
    notes.push_back("no tokenizer is written (tokenizer.ggml.model = no_vocab): " + why);
  }
  set_chat_template(folder, tokenizer_config, writer);
  return ok_status();
}

}  // namespace dspark
