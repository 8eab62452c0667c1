#include "text/tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "text/tokenizer_impl.h"

namespace dspark {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

void append_with_spaces(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size();) {
    if (text.substr(i, kSpaceMark.size()) == kSpaceMark) {
      out += ' ';
      i += kSpaceMark.size();
    } else {
      out += text[i++];
    }
  }
}

int hex_digit(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                : -1;
}

// "<0xAB>" -> 0xAB, else -1.
int byte_of_piece(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int high = hex_digit(text[3]);
  const int low = hex_digit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// Lower is better: the order of floats turned round. requires: not NaN.
uint32_t order_of_score(float score) {
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  const uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return ~ascending;
}

bool is_end_marker(std::string_view text) {
  const auto& names = end_token_names();
  return text == "</s>" || std::find(names.begin(), names.end(), text) != names.end();
}

bool mergeable(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined;
}

Status check_id(const TokenizerSpec& spec, int32_t id, const char* what) {
  if (id == -1 || spec.vocab.contains(id)) return ok_status();
  return corrupt_data("tokenizer: " + std::string(what) + " id " + std::to_string(id) +
                      " is outside the vocabulary of " + std::to_string(spec.vocab.size()) + " tokens");
}

Status check_spec(const TokenizerSpec& spec) {
  if (spec.vocab.size() == 0) return corrupt_data("tokenizer: the vocabulary is empty");
  DSPARK_RETURN_IF_ERROR(check_id(spec, spec.bos_id, "bos"));
  DSPARK_RETURN_IF_ERROR(check_id(spec, spec.eos_id, "eos"));
  DSPARK_RETURN_IF_ERROR(check_id(spec, spec.eot_id, "eot"));
  DSPARK_RETURN_IF_ERROR(check_id(spec, spec.pad_id, "padding"));
  DSPARK_RETURN_IF_ERROR(check_id(spec, spec.unk_id, "unknown-token"));
  if (!spec.by_score) return ok_status();
  for (size_t i = 0; i < spec.scores.size(); ++i) {
    if (std::isnan(spec.scores[i])) {
      return corrupt_data("tokenizer: the score of token " + std::to_string(i) + " is not a number");
    }
  }
  return ok_status();
}

// eot, and the stop ids that follow from the texts of special tokens.
void find_end_tokens(TokenizerSpec& spec, const std::vector<uint8_t>& special) {
  const auto special_named = [&](std::string_view name) {
    const int32_t id = spec.vocab.find(name);
    return id >= 0 && special[static_cast<size_t>(id)] != 0 ? id : -1;
  };
  // Harmony (gpt-oss) ends every message with <|end|>, also between messages of one answer.
  const bool harmony = special_named("<|return|>") >= 0 && special_named("<|call|>") >= 0;
  for (std::string_view name : end_token_names()) {
    const int32_t id = special_named(name);
    if (id < 0 || (harmony && name == "<|end|>")) continue;
    if (spec.eot_id < 0) spec.eot_id = id;
    spec.stop_ids.push_back(id);
  }
  spec.stop_ids.push_back(spec.eos_id);
  spec.stop_ids.push_back(spec.eot_id);
  std::erase_if(spec.stop_ids, [&](int32_t id) { return !spec.vocab.contains(id); });
  std::sort(spec.stop_ids.begin(), spec.stop_ids.end());
  spec.stop_ids.erase(std::unique(spec.stop_ids.begin(), spec.stop_ids.end()), spec.stop_ids.end());
}

}  // namespace

const std::vector<std::string_view>& end_token_names() {
  static const std::vector<std::string_view> names = {
      "<|eot_id|>",
      "<|im_end|>",
      "<end_of_turn>",
      "<turn|>",
      "<|eot|>",
      "<|end|>",
      "<|return|>",
      "<|call|>",
      "<end_of_utterance>",
      "<|eom_id|>",
      "<|endoftext|>",
      "<|end_of_text|>",
      "<\xEF\xBD\x9C"
      "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",  // DeepSeek
      "<|tool_response>",  // Gemma 4: what comes behind it is not the model's to write
  };
  return names;
}

void Tokenizer::Impl::prepare_bytes() {
  const Vocab& vocab = spec.vocab;
  std::string raw;
  bytes.reserve(static_cast<size_t>(vocab.size()), 0);
  for (int32_t id = 0; id < vocab.size(); ++id) {
    raw.clear();
    const TokenKind kind = vocab.kind(id);
    const std::string_view text = vocab.text(id);
    const int byte = kind == TokenKind::kByte ? byte_of_piece(text) : -1;
    if (byte >= 0) {
      raw += static_cast<char>(byte);
    } else if (kind == TokenKind::kUnused) {
      // Padding rows show nothing.
    } else if (spec.coding == PieceCoding::kByteLevel && kind == TokenKind::kNormal) {
      alphabet.decode(text, raw);
    } else if (spec.coding == PieceCoding::kSpaceMarker && mergeable(kind)) {
      append_with_spaces(text, raw);
    } else {
      raw = text;
    }
    bytes.add(raw);
  }
}

void Tokenizer::Impl::prepare_merging() {
  const Vocab& vocab = spec.vocab;
  const bool byte_level = spec.coding == PieceCoding::kByteLevel;
  std::fill(std::begin(byte_ids), std::end(byte_ids), -1);
  if (byte_level) {
    for (int b = 0; b < 256; ++b) {
      std::string text;
      const char raw = static_cast<char>(b);
      alphabet.encode({&raw, 1}, text);
      byte_ids[b] = vocab.find(text);
    }
    return;
  }
  if (spec.by_score) order.assign(static_cast<size_t>(vocab.size()), UINT32_MAX);
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const TokenKind kind = vocab.kind(id);
    if (kind == TokenKind::kByte) {
      const int byte = byte_of_piece(vocab.text(id));
      if (byte >= 0) byte_ids[byte] = id;
    }
    if (!mergeable(kind)) continue;
    pairs.add_all(vocab.text(id));
    if (spec.by_score) order[static_cast<size_t>(id)] = order_of_score(spec.scores[static_cast<size_t>(id)]);
  }
}

void Tokenizer::Impl::prepare_matchers() {
  std::vector<int32_t> lists[4];  // raw_all, raw_plain, normalized_all, normalized_plain
  for (const AddedToken& token : spec.added) {
    const size_t base = token.normalized && !spec.normalizer.empty() ? 2 : 0;
    lists[base].push_back(token.id);
    if (special[static_cast<size_t>(token.id)] == 0) lists[base + 1].push_back(token.id);
    strip[static_cast<size_t>(token.id)] =
        static_cast<uint8_t>((token.strip_left ? 1 : 0) | (token.strip_right ? 2 : 0));
  }
  raw_all = TokenMatcher(spec.vocab, std::move(lists[0]));
  raw_plain = TokenMatcher(spec.vocab, std::move(lists[1]));
  normalized_all = TokenMatcher(spec.vocab, std::move(lists[2]));
  normalized_plain = TokenMatcher(spec.vocab, std::move(lists[3]));
}

void Tokenizer::Impl::prepare() {
  const size_t n = static_cast<size_t>(spec.vocab.size());
  special.assign(n, 0);
  strip.assign(n, 0);
  for (size_t i = 0; i < n; ++i) {
    const TokenKind kind = spec.vocab.kind(static_cast<int32_t>(i));
    special[i] = kind == TokenKind::kControl || kind == TokenKind::kUnknown;
  }
  for (const AddedToken& token : spec.added) {
    // Some files mark their end tokens as visible; a user must not be able to type an end of generation.
    if (token.special || is_end_marker(spec.vocab.text(token.id))) special[static_cast<size_t>(token.id)] = 1;
  }
  prepare_bytes();
  prepare_merging();
  prepare_matchers();
  find_end_tokens(spec, special);
}

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::build(TokenizerSpec spec) {
  DSPARK_RETURN_IF_ERROR(check_spec(spec));
  auto impl = std::make_unique<Impl>();
  impl->spec = std::move(spec);
  impl->prepare();
  return Tokenizer(std::move(impl));
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return impl_->spec.vocab.contains(id) ? impl_->bytes[static_cast<size_t>(id)] : std::string_view();
}

std::string_view Tokenizer::token_text(int32_t id) const {
  return impl_->spec.vocab.contains(id) ? impl_->spec.vocab.text(id) : std::string_view();
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  bool at_start = strips_leading_space();
  for (int32_t id : ids) {
    if (skip_special && is_special(id)) continue;
    std::string_view piece = token_bytes(id);
    if (piece.empty()) continue;
    if (at_start && piece[0] == ' ') piece.remove_prefix(1);
    at_start = false;
    out += piece;
  }
  return out;
}

bool Tokenizer::strips_leading_space() const {
  return impl_->spec.strip_leading_space;
}
int32_t Tokenizer::vocab_size() const {
  return impl_->spec.vocab.size();
}
int32_t Tokenizer::bos_id() const {
  return impl_->spec.bos_id;
}
int32_t Tokenizer::eos_id() const {
  return impl_->spec.eos_id;
}
int32_t Tokenizer::eot_id() const {
  return impl_->spec.eot_id;
}
int32_t Tokenizer::pad_id() const {
  return impl_->spec.pad_id;
}
const std::vector<int32_t>& Tokenizer::stop_ids() const {
  return impl_->spec.stop_ids;
}
bool Tokenizer::is_stop(int32_t id) const {
  return std::binary_search(stop_ids().begin(), stop_ids().end(), id);
}
bool Tokenizer::is_special(int32_t id) const {
  return impl_->spec.vocab.contains(id) && impl_->special[static_cast<size_t>(id)] != 0;
}
bool Tokenizer::is_unused(int32_t id) const {
  return !impl_->spec.vocab.contains(id) || impl_->spec.vocab.kind(id) == TokenKind::kUnused;
}
int32_t Tokenizer::find_token(std::string_view text) const {
  return impl_->spec.vocab.find(text);
}
bool Tokenizer::add_bos() const {
  return !impl_->spec.prefix_ids.empty() && impl_->spec.prefix_ids.front() == bos_id();
}
bool Tokenizer::add_eos() const {
  return !impl_->spec.suffix_ids.empty() && impl_->spec.suffix_ids.back() == eos_id();
}
const std::string& Tokenizer::chat_template() const {
  return impl_->spec.chat_template;
}
const std::string& Tokenizer::description() const {
  return impl_->spec.description;
}

}  // namespace dspark
