// Tokenizer from the files of a Hugging Face folder: tokenizer.json (format of the `tokenizers` library),
// tokenizer_config.json, generation_config.json.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "text/json_fields.h"
#include "text/json_steps.h"
#include "text/merge_list.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json_parse.h"
#include "text/tokenizer_spec.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr size_t kMaxGaps = 65536;  // ids without a token: rows that a model keeps for later

const json& member_or_null(const json& node, const char* key) {
  static const json null;
  const json* member = json_member(node, key);
  return member == nullptr ? null : *member;
}

class JsonReader {
 public:
  JsonReader(TokenizerJson parsed, const json& config) : parsed_(std::move(parsed)), config_(config) {}

  Result<TokenizerSpec> read(const json& model_config, const json& generation_config) {
    const json& root = *parsed_.rest;
    spec_.coding = PieceCoding::kPlain;
    DSPARK_RETURN_IF_ERROR(read_model(member_or_null(root, "model")));
    DSPARK_RETURN_IF_ERROR(read_added(member_or_null(root, "added_tokens")));
    DSPARK_RETURN_IF_ERROR(build_vocab());
    DSPARK_RETURN_IF_ERROR(read_merges());
    DSPARK_RETURN_IF_ERROR(read_json_normalizer(member_or_null(root, "normalizer"), spec_));
    DSPARK_RETURN_IF_ERROR(read_json_pre_tokenizer(member_or_null(root, "pre_tokenizer"), spec_));
    DSPARK_RETURN_IF_ERROR(read_json_decoder(member_or_null(root, "decoder"), spec_));
    DSPARK_RETURN_IF_ERROR(read_json_post_processor(member_or_null(root, "post_processor"), spec_));
    DSPARK_RETURN_IF_ERROR(read_unknown(member_or_null(root, "model")));
    DSPARK_RETURN_IF_ERROR(read_special(model_config, generation_config));
    read_chat_template();
    spec_.description = spec_.coding == PieceCoding::kByteLevel ? "byte-level BPE (tokenizer.json)"
                        : spec_.byte_fallback                   ? "BPE with byte fallback (tokenizer.json)"
                                                                : "BPE (tokenizer.json)";
    return std::move(spec_);
  }

 private:
  Status read_model(const json& model) {
    const std::string type = json_string(model, "type").value_or(parsed_.merges.size() > 0 ? "BPE" : "");
    if (type != "BPE") return unsupported("model.type: unknown kind '" + type + "'; known: BPE");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!json_string(model, key).value_or("").empty()) {
        return unsupported(std::string("model.") + key + ": only empty is known");
      }
    }
    if (parsed_.ids.empty()) return corrupt_data("model.vocab: missing or empty");
    spec_.byte_fallback = json_bool(model, "byte_fallback").value_or(false);
    spec_.ignore_merges = json_bool(model, "ignore_merges").value_or(false);
    spec_.fuse_unknown = json_bool(model, "fuse_unk").value_or(false);
    return ok_status();
  }

  Status read_unknown(const json& model) {
    const auto text = json_string(model, "unk_token");
    if (!text) return ok_status();
    spec_.unk_id = spec_.vocab.find(*text);
    return spec_.unk_id >= 0 ? ok_status() : corrupt_data("model.unk_token: '" + *text + "' is no token");
  }

  Status read_added(const json& list) {
    if (list.is_null()) return ok_status();
    if (!list.is_array()) return corrupt_data("added_tokens: expected an array");
    for (size_t i = 0; i < list.size(); ++i) {
      const json& node = list[i];
      const json& id = member_or_null(node, "id");
      const auto content = json_string(node, "content");
      const bool id_ok =
          id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < INT32_MAX / 2;
      if (!id_ok || !content) {
        return corrupt_data(fmt::format("added_tokens[{}]: expected an id and a content", i));
      }
      if (json_bool(node, "single_word").value_or(false)) {
        return unsupported(fmt::format("added_tokens[{}] '{}': single_word", i, *content));
      }
      AddedToken token;
      token.id = static_cast<int32_t>(id.get<int64_t>());
      token.special = json_bool(node, "special").value_or(false);
      token.normalized = json_bool(node, "normalized").value_or(!token.special);
      token.strip_left = json_bool(node, "lstrip").value_or(false);
      token.strip_right = json_bool(node, "rstrip").value_or(false);
      spec_.added.push_back(token);
      added_texts_.push_back(*content);
    }
    return ok_status();
  }

  // Orders the pieces by id. Added tokens win over the same id in model.vocab.
  Status build_vocab() {
    size_t size = 0;
    for (int32_t id : parsed_.ids) size = std::max(size, static_cast<size_t>(id) + 1);
    for (const AddedToken& token : spec_.added) size = std::max(size, static_cast<size_t>(token.id) + 1);
    if (size > parsed_.ids.size() + spec_.added.size() + kMaxGaps) {
      return corrupt_data(fmt::format("model.vocab: the largest id is {}, but there are only {} tokens",
                                      size - 1, parsed_.ids.size() + spec_.added.size()));
    }
    constexpr size_t kNone = SIZE_MAX;
    std::vector<size_t> entry_of(size, kNone);
    for (size_t i = 0; i < parsed_.ids.size(); ++i) {
      size_t& entry = entry_of[static_cast<size_t>(parsed_.ids[i])];
      if (entry != kNone) {
        return corrupt_data(fmt::format("model.vocab: id {} stands for both '{}' and '{}'", parsed_.ids[i],
                                        parsed_.vocab[entry], parsed_.vocab[i]));
      }
      entry = i;
    }
    std::vector<size_t> added_of(size, kNone);
    for (size_t i = 0; i < spec_.added.size(); ++i) added_of[static_cast<size_t>(spec_.added[i].id)] = i;
    spec_.vocab.reserve(size, size * 8);
    for (size_t id = 0; id < size; ++id) {
      if (const size_t i = added_of[id]; i != kNone) {
        spec_.vocab.add(added_texts_[i],
                        spec_.added[i].special ? TokenKind::kControl : TokenKind::kUserDefined);
      } else if (entry_of[id] != kNone) {
        const std::string_view text = parsed_.vocab[entry_of[id]];
        const bool byte =
            spec_.byte_fallback && text.size() == 6 && text.substr(0, 3) == "<0x" && text[5] == '>';
        spec_.vocab.add(text, byte ? TokenKind::kByte : TokenKind::kNormal);
      } else {
        spec_.vocab.add("", TokenKind::kUnused);
      }
    }
    spec_.vocab.index();
    return ok_status();
  }

  Status read_merges() {
    const StringPool& merges = parsed_.merges;
    const size_t step = parsed_.merges_are_pairs ? 2 : 1;
    MergeListReader reader(spec_.vocab, merges.size() / step, "model.merges");
    for (size_t i = 0; i + step <= merges.size(); i += step) {
      DSPARK_RETURN_IF_ERROR(step == 2 ? reader.add(merges[i], merges[i + 1]) : reader.add(merges[i]));
    }
    spec_.merges = reader.take();
    return ok_status();
  }

  // bos_token etc. of tokenizer_config.json: a string or an object with "content".
  Status named_token(const char* key, int32_t& out) const {
    const json& node = member_or_null(config_, key);
    const std::string text =
        node.is_string() ? node.get<std::string>() : json_string(node, "content").value_or("");
    if (text.empty()) return ok_status();
    out = spec_.vocab.find(text);
    if (out >= 0) return ok_status();
    return corrupt_data(fmt::format("tokenizer_config.json: {} '{}' is no token", key, text));
  }

  // An id or a list of ids; the first goes to `first` when that is unset.
  Status ids_of(const json& config, const char* file, const char* key, int32_t& first, bool all_stop) {
    const json& node = member_or_null(config, key);
    if (node.is_null()) return ok_status();
    const json list = node.is_array() ? node : json::array({node});
    for (const json& element : list) {
      DSPARK_ASSIGN_OR_RETURN(const int32_t id,
                              json_token_id(element, spec_.vocab, std::string(file) + ": " + key));
      if (first < 0) first = id;
      if (all_stop) spec_.stop_ids.push_back(id);
    }
    return ok_status();
  }

  Status read_special(const json& model_config, const json& generation_config) {
    DSPARK_RETURN_IF_ERROR(named_token("bos_token", spec_.bos_id));
    DSPARK_RETURN_IF_ERROR(named_token("eos_token", spec_.eos_id));
    DSPARK_RETURN_IF_ERROR(named_token("pad_token", spec_.pad_id));
    const struct {
      const json& config;
      const char* file;
    } sources[] = {{generation_config, "generation_config.json"}, {model_config, "config.json"}};
    for (const auto& source : sources) {
      DSPARK_RETURN_IF_ERROR(ids_of(source.config, source.file, "bos_token_id", spec_.bos_id, false));
      DSPARK_RETURN_IF_ERROR(ids_of(source.config, source.file, "eos_token_id", spec_.eos_id, true));
    }
    // Where both files speak, the configuration decides, as in the library these files are made for.
    apply_flag("add_bos_token", spec_.bos_id, spec_.prefix_ids);
    apply_flag("add_eos_token", spec_.eos_id, spec_.suffix_ids);
    return ok_status();
  }

  void apply_flag(const char* key, int32_t id, std::vector<int32_t>& ids) const {
    const auto wanted = json_bool(config_, key);
    if (!wanted || id < 0) return;
    const bool present = std::find(ids.begin(), ids.end(), id) != ids.end();
    if (*wanted && !present) ids.insert(ids.begin(), id);
    if (!*wanted) std::erase(ids, id);
  }

  void read_chat_template() {
    const json& node = member_or_null(config_, "chat_template");
    if (node.is_string()) {
      spec_.chat_template = node.get<std::string>();
      return;
    }
    if (!node.is_array()) return;
    for (const json& entry : node) {  // several named ones: the one called "default", else the first
      const std::string source = json_string(entry, "template").value_or("");
      if (spec_.chat_template.empty() || json_string(entry, "name") == "default")
        spec_.chat_template = source;
    }
  }

  TokenizerJson parsed_;
  const json& config_;
  std::vector<std::string> added_texts_;
  TokenizerSpec spec_;
};

Result<TokenizerSpec> read_spec(const HfTokenizerFiles& files, const json& config, const json& model_config,
                                const json& generation_config) {
  DSPARK_ASSIGN_OR_RETURN(TokenizerJson parsed, parse_tokenizer_json(files.tokenizer));
  return JsonReader(std::move(parsed), config).read(model_config, generation_config);
}

}  // namespace

Result<Tokenizer> Tokenizer::from_json(const HfTokenizerFiles& files, const json& model_config,
                                       const json& generation_config) {
  json config;
  if (!files.config.empty()) {
    config = json::parse(files.config.begin(), files.config.end(), nullptr, false);
    if (!config.is_object()) {
      return corrupt_data("tokenizer_config.json beside " + files.name + ": not a JSON object");
    }
  }
  Result<TokenizerSpec> spec = read_spec(files, config, model_config, generation_config);
  if (!spec.ok()) return Status(spec.status().code(), files.name + ": " + spec.status().message());
  if (!files.chat_template.empty()) spec->chat_template = files.chat_template;
  return build(std::move(spec).value());
}

}  // namespace dspark
