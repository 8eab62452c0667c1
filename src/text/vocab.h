#pragma once
// The pieces of a tokenizer: their texts, kinds and a flat hash table from text to id.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace dspark {

/// Many short strings in one block of memory.
class StringPool {
 public:
  void reserve(size_t n_strings, size_t n_bytes);
  void add(std::string_view text);
  size_t size() const { return ends_.size(); }
  /// requires: i < size(). Valid until the next add().
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(blob_).substr(begin, ends_[i] - begin);
  }

 private:
  std::string blob_;
  std::vector<size_t> ends_;
};

/// What a piece is; values as in the GGUF key tokenizer.ggml.token_type.
enum class TokenKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // never produced from plain text
  kUserDefined = 4,  // matched in text before anything else, visible
  kUnused = 5,       // padding row of the embedding, must never be sampled or printed
  kByte = 6,         // "<0xAB>" of byte fallback
};

/// 64-bit mix of a short string; stable within one run.
uint64_t hash_text(std::string_view text);

/// id -> text, kind, raw bytes; text -> id. Texts are as in the file (byte-level pieces in their printable
/// form). Built once, then const. thread: const members from any thread.
class Vocab {
 public:
  void reserve(size_t n_tokens, size_t n_bytes);
  /// Appends the piece with the next id.
  void add(std::string_view text, TokenKind kind);
  /// Builds the text -> id table. Of equal texts the lowest id is found; kUnused pieces never are.
  void index();

  int32_t size() const { return static_cast<int32_t>(kinds_.size()); }
  std::string_view text(int32_t id) const { return texts_[static_cast<size_t>(id)]; }
  TokenKind kind(int32_t id) const { return kinds_[static_cast<size_t>(id)]; }
  void set_kind(int32_t id, TokenKind kind) { kinds_[static_cast<size_t>(id)] = kind; }
  bool contains(int64_t id) const { return id >= 0 && id < size(); }
  /// returns: id, or -1. requires: index() was called.
  int32_t find(std::string_view text) const;

 private:
  struct Slot {
    uint32_t hash = 0;
    int32_t id = -1;
  };
  StringPool texts_;
  std::vector<TokenKind> kinds_;
  std::vector<Slot> slots_;  // power of two, at most half full, linear probing
  size_t longest_ = 0;       // bytes
};

/// (left id, right id) -> rank and merged id: the merges of a BPE tokenizer.
class MergeTable {
 public:
  struct Hit {
    uint32_t rank = UINT32_MAX;  // UINT32_MAX: these two do not merge
    int32_t id = -1;
  };

  explicit MergeTable(size_t n_merges = 0);
  /// Keeps the first of equal pairs. requires: ids >= 0, at most n_merges calls.
  void add(int32_t left, int32_t right, uint32_t rank, int32_t merged);
  Hit find(int32_t left, int32_t right) const {
    const uint64_t key = make_key(left, right);
    for (size_t i = start(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return slots_[i].hit;
      if (slots_[i].key == kEmpty) return {};
    }
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    Hit hit;
  };
  static uint64_t make_key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t start(uint64_t key) const { return (key * 0x9E3779B97F4A7C15u >> 32) & mask_; }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
};

/// The printable alphabet of byte-level BPE (GPT-2): bytes 33..126, 161..172 and 174..255 stand for the code
/// points of the same value, the 68 others, in order, for U+0100 and up.
class ByteAlphabet {
 public:
  ByteAlphabet();
  uint16_t code_point(uint8_t byte) const { return code_points_[byte]; }
  /// returns: the byte, or -1 for a code point outside the alphabet.
  int byte(uint32_t code_point) const { return code_point < 512 ? bytes_[code_point] : -1; }
  /// Printable form of raw bytes, appended to `out`.
  void encode(std::string_view bytes, std::string& out) const;
  /// Raw bytes of a printable form; characters outside the alphabet stay as they are.
  void decode(std::string_view text, std::string& out) const;

 private:
  uint16_t code_points_[256];
  int16_t bytes_[512];
};

}  // namespace dspark
