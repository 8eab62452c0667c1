#pragma once
// Text <-> token ids, for byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM2) and BPE with byte fallback (Gemma,
// Llama 2), from GGUF metadata or from the tokenizer.json of a Hugging Face folder.

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"

namespace dspark {

struct TokenizerSpec;

/// GGUF metadata as a Checkpoint holds it.
using MetadataMap = std::map<std::string, MetaValue, std::less<>>;

/// The files of a Hugging Face folder that describe a tokenizer; only the first is required, absent ones are
/// empty. Contents, not paths.
struct HfTokenizerFiles {
  std::string name = "tokenizer.json";  // for messages, e.g. the path
  std::string_view tokenizer;           // tokenizer.json
  std::string_view config;              // tokenizer_config.json
  std::string_view chat_template;       // chat_template.jinja
};

/// Built once, then const. Movable. thread: const members from any thread.
class Tokenizer {
 public:
  /// From the metadata of a GGUF file (keys tokenizer.*), or from the folder of a safetensors model.
  /// errors: not_found (no tokenizer in the model), corrupt_data, unsupported (kind of tokenizer,
  /// pre-tokenizer); messages name the key or the JSON path.
  static Result<Tokenizer> load(const Checkpoint& checkpoint);
  static Result<Tokenizer> from_gguf(const MetadataMap& metadata);
  /// `model_config`, `generation_config`: config.json and generation_config.json, or null.
  static Result<Tokenizer> from_json(const HfTokenizerFiles& files, const nlohmann::json& model_config,
                                     const nlohmann::json& generation_config);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Ids of `text`. add_special: with BOS/EOS where the model wants them. parse_special: the text of a
  /// special token becomes that token; without it such text is tokenised as ordinary text (user-defined
  /// tokens match either way). Text that is not UTF-8 is accepted: byte-level BPE reads every bad byte as
  /// U+FFFD, byte fallback keeps the bytes. requires: text.size() < 2^31.
  std::vector<int32_t> encode(std::string_view text, bool add_special, bool parse_special) const;

  /// Raw bytes that a token stands for: a part of a character, a space for the leading mark, the text of a
  /// special token. Empty for padding rows and for ids outside the vocabulary. Valid while the tokenizer
  /// lives.
  std::string_view token_bytes(int32_t id) const;
  /// The token as the model file spells it; empty outside the vocabulary.
  std::string_view token_text(int32_t id) const;
  /// Bytes of a sequence, not necessarily UTF-8 (see StreamingDetokenizer). skip_special leaves out special
  /// tokens.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;
  /// True when the first piece of a text drops one leading space (the model puts one there on encoding).
  bool strips_leading_space() const;

  /// Ids are 0 .. vocab_size() - 1. May be smaller than the number of rows of the embedding.
  int32_t vocab_size() const;
  /// -1 when the model has none.
  int32_t bos_id() const;
  int32_t eos_id() const;
  /// End of a turn in a chat; -1 when the model has none. May equal eos_id().
  int32_t eot_id() const;
  int32_t pad_id() const;
  /// Ids that end a generation, ascending: eos, end-of-turn tokens, those of generation_config.json.
  const std::vector<int32_t>& stop_ids() const;
  bool is_stop(int32_t id) const;
  /// Control tokens: not part of the visible text.
  bool is_special(int32_t id) const;
  /// Padding rows and ids outside the vocabulary: never to be sampled.
  bool is_unused(int32_t id) const;
  /// Id of the token spelled `text` (as token_text gives it), or -1.
  int32_t find_token(std::string_view text) const;
  /// Whether encode(add_special = true) starts with BOS / ends with EOS. A chat template that writes the BOS
  /// itself is encoded with add_special = false.
  bool add_bos() const;
  bool add_eos() const;
  /// Jinja source; empty when the model has none.
  const std::string& chat_template() const;
  /// For people, e.g. "byte-level BPE, pre-tokenizer qwen2".
  const std::string& description() const;

 private:
  friend class EncodePass;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  static Result<Tokenizer> build(TokenizerSpec spec);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace dspark
