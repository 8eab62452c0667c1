// Tokenizer from GGUF metadata. Keys and token types: the GGUF specification; behaviour of
// tokenizer.ggml.model = gpt2, llama and gemma4 as the files in circulation expect it.

#include <fmt/format.h>

#include "text/merge_list.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"

namespace dspark {
namespace {

class GgufReader {
 public:
  explicit GgufReader(const MetadataMap& metadata) : metadata_(metadata) {}

  Result<TokenizerSpec> read() {
    DSPARK_RETURN_IF_ERROR(get("tokenizer.ggml.model", model_, true));
    DSPARK_RETURN_IF_ERROR(read_vocab());
    if (model_ == "gpt2") {
      DSPARK_RETURN_IF_ERROR(read_byte_level());
    } else if (model_ == "llama") {
      DSPARK_RETURN_IF_ERROR(read_sentencepiece());
    } else {
      DSPARK_RETURN_IF_ERROR(read_gemma4());
    }
    DSPARK_RETURN_IF_ERROR(read_special_ids());
    DSPARK_RETURN_IF_ERROR(get("tokenizer.chat_template", spec_.chat_template, false));
    return std::move(spec_);
  }

 private:
  const MetaValue* find(std::string_view key) const {
    const auto it = metadata_.find(key);
    return it == metadata_.end() ? nullptr : &it->second;
  }

  // Absent and not required: `out` keeps its value.
  template <typename T>
  Status get(std::string_view key, T& out, bool required) const {
    const MetaValue* value = find(key);
    if (value == nullptr) {
      return required ? not_found(fmt::format("{}: missing, the file carries no tokenizer", key))
                      : ok_status();
    }
    if (!std::holds_alternative<T>(*value)) {
      return corrupt_data(fmt::format("{}: expected {}, found another type", key, type_name<T>()));
    }
    out = std::get<T>(*value);
    return ok_status();
  }

  template <typename T>
  static const char* type_name() {
    if constexpr (std::is_same_v<T, std::string>) return "a string";
    if constexpr (std::is_same_v<T, bool>) return "a boolean";
    return "an integer";
  }

  template <typename T>
  Result<const std::vector<T>*> get_array(std::string_view key, size_t expected_size) const {
    const MetaValue* value = find(key);
    if (value == nullptr) return corrupt_data(fmt::format("{}: missing", key));
    const auto* array = std::get_if<std::vector<T>>(value);
    if (array == nullptr) return corrupt_data(fmt::format("{}: expected an array of another type", key));
    if (expected_size != 0 && array->size() != expected_size) {
      return corrupt_data(fmt::format("{}: expected {} entries as in tokenizer.ggml.tokens, found {}", key,
                                      expected_size, array->size()));
    }
    return array;
  }

  Status read_vocab() {
    if (model_ == "no_vocab" || model_ == "none") {
      return not_found("tokenizer.ggml.model is '" + model_ + "': the file carries no tokenizer");
    }
    if (model_ != "gpt2" && model_ != "llama" && model_ != "gemma4") {
      return unsupported("tokenizer.ggml.model: unknown kind '" + model_ + "'; known: gpt2 llama gemma4");
    }
    DSPARK_ASSIGN_OR_RETURN(const auto* tokens, get_array<std::string>("tokenizer.ggml.tokens", 0));
    if (tokens->empty() || tokens->size() > INT32_MAX / 2) {
      return corrupt_data(fmt::format("tokenizer.ggml.tokens: {} entries", tokens->size()));
    }
    const std::vector<int64_t>* types = nullptr;
    if (find("tokenizer.ggml.token_type") != nullptr) {
      DSPARK_ASSIGN_OR_RETURN(types, get_array<int64_t>("tokenizer.ggml.token_type", tokens->size()));
    }
    spec_.vocab.reserve(tokens->size(), tokens->size() * 8);
    for (size_t i = 0; i < tokens->size(); ++i) {
      const int64_t type = types == nullptr ? 1 : (*types)[i];
      if (type < 0 || type > 6) {
        return corrupt_data(fmt::format("tokenizer.ggml.token_type[{}]: expected 1..6, found {}", i, type));
      }
      // 0 ("undefined") stands in files whose writer did not know; such tokens are ordinary.
      spec_.vocab.add((*tokens)[i], type == 0 ? TokenKind::kNormal : static_cast<TokenKind>(type));
    }
    spec_.vocab.index();
    add_matched_tokens();
    return ok_status();
  }

  void add_matched_tokens() {
    for (int32_t id = 0; id < spec_.vocab.size(); ++id) {
      const TokenKind kind = spec_.vocab.kind(id);
      const bool special = kind == TokenKind::kControl || kind == TokenKind::kUnknown;
      if (special || kind == TokenKind::kUserDefined)
        spec_.added.push_back({id, special, false, false, false});
    }
  }

  Status read_merges() {
    DSPARK_ASSIGN_OR_RETURN(const auto* merges, get_array<std::string>("tokenizer.ggml.merges", 0));
    MergeListReader reader(spec_.vocab, merges->size(), "tokenizer.ggml.merges");
    for (const std::string& merge : *merges) DSPARK_RETURN_IF_ERROR(reader.add(merge));
    spec_.merges = reader.take();
    return ok_status();
  }

  Status read_byte_level() {
    std::string pre;
    DSPARK_RETURN_IF_ERROR(get("tokenizer.ggml.pre", pre, false));
    DSPARK_ASSIGN_OR_RETURN(spec_.pre_tokenizer, PreTokenizer::named(pre));
    DSPARK_RETURN_IF_ERROR(read_merges());
    spec_.coding = PieceCoding::kByteLevel;
    spec_.ignore_merges = PreTokenizer::ignores_merges(pre);
    default_add_bos_ = PreTokenizer::adds_bos(pre);
    spec_.description = "byte-level BPE, pre-tokenizer " + (pre.empty() ? "default" : pre);
    return ok_status();
  }

  Status read_sentencepiece() {
    const size_t n = static_cast<size_t>(spec_.vocab.size());
    DSPARK_ASSIGN_OR_RETURN(const auto* scores, get_array<double>("tokenizer.ggml.scores", n));
    spec_.scores.assign(scores->begin(), scores->end());
    spec_.by_score = true;
    set_space_marker(true);
    spec_.bos_id = n > 1 ? 1 : -1;  // what files without the keys mean
    spec_.eos_id = n > 2 ? 2 : -1;
    spec_.unk_id = 0;
    default_add_bos_ = true;
    spec_.description = "SentencePiece-style BPE with byte fallback";
    return get_space_prefix();
  }

  // BPE with merges over text with space marks, cut only between newlines and other text.
  Status read_gemma4() {
    DSPARK_RETURN_IF_ERROR(read_merges());
    set_space_marker(false);
    DSPARK_ASSIGN_OR_RETURN(Regex newlines, Regex::compile(R"(\n+)"));
    spec_.pre_tokenizer.add_split(std::move(newlines), PreTokenizer::Behavior::kIsolated, false);
    default_add_bos_ = true;
    spec_.description = "BPE with byte fallback (gemma4)";
    return get_space_prefix();
  }

  void set_space_marker(bool default_prefix) {
    spec_.coding = PieceCoding::kSpaceMarker;
    spec_.byte_fallback = true;
    spec_.prefix_space = default_prefix;
    spec_.normalizer.add_replace(" ", "\xE2\x96\x81");
  }

  Status get_space_prefix() {
    DSPARK_RETURN_IF_ERROR(get("tokenizer.ggml.add_space_prefix", spec_.prefix_space, false));
    spec_.strip_leading_space = spec_.prefix_space;
    return ok_status();
  }

  Status get_id(std::string_view key, int32_t& out) const {
    const MetaValue* value = find(key);
    if (value == nullptr) return ok_status();
    int64_t id = 0;
    DSPARK_RETURN_IF_ERROR(get(key, id, false));
    if (!spec_.vocab.contains(id)) {
      return corrupt_data(fmt::format("{}: expected an id below {}, found {}", key, spec_.vocab.size(), id));
    }
    out = static_cast<int32_t>(id);
    return ok_status();
  }

  Status read_special_ids() {
    DSPARK_RETURN_IF_ERROR(get_id("tokenizer.ggml.bos_token_id", spec_.bos_id));
    DSPARK_RETURN_IF_ERROR(get_id("tokenizer.ggml.eos_token_id", spec_.eos_id));
    DSPARK_RETURN_IF_ERROR(get_id("tokenizer.ggml.eot_token_id", spec_.eot_id));
    DSPARK_RETURN_IF_ERROR(get_id("tokenizer.ggml.padding_token_id", spec_.pad_id));
    DSPARK_RETURN_IF_ERROR(get_id("tokenizer.ggml.unknown_token_id", spec_.unk_id));
    int32_t eom = -1;
    DSPARK_RETURN_IF_ERROR(get_id("tokenizer.ggml.eom_token_id", eom));
    spec_.stop_ids.push_back(eom);
    // Byte-level files name an unknown token too, but no text of theirs ever becomes it.
    if (spec_.coding == PieceCoding::kByteLevel) spec_.unk_id = -1;
    bool add_bos = default_add_bos_;
    bool add_eos = false;
    DSPARK_RETURN_IF_ERROR(get("tokenizer.ggml.add_bos_token", add_bos, false));
    DSPARK_RETURN_IF_ERROR(get("tokenizer.ggml.add_eos_token", add_eos, false));
    if (add_bos && spec_.bos_id >= 0) spec_.prefix_ids.push_back(spec_.bos_id);
    if (add_eos && spec_.eos_id >= 0) spec_.suffix_ids.push_back(spec_.eos_id);
    return ok_status();
  }

  const MetadataMap& metadata_;
  std::string model_;
  bool default_add_bos_ = false;
  TokenizerSpec spec_;
};

}  // namespace

Result<Tokenizer> Tokenizer::from_gguf(const MetadataMap& metadata) {
  DSPARK_ASSIGN_OR_RETURN(TokenizerSpec spec, GgufReader(metadata).read());
  return build(std::move(spec));
}

}  // namespace dspark
