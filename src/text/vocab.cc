#include "text/vocab.h"

#include <algorithm>
#include <cstring>

#include "text/utf8.h"

namespace dspark {
namespace {

constexpr uint64_t kMixer = 0x9DDFEA08EB382D69u;

size_t table_size(size_t n_entries) {
  size_t size = 16;
  while (size < n_entries * 2) size *= 2;
  return size;
}

}  // namespace

void StringPool::reserve(size_t n_strings, size_t n_bytes) {
  ends_.reserve(n_strings);
  blob_.reserve(n_bytes);
}

void StringPool::add(std::string_view text) {
  blob_ += text;
  ends_.push_back(blob_.size());
}

uint64_t hash_text(std::string_view text) {
  uint64_t hash = text.size() * kMixer;
  const char* p = text.data();
  size_t left = text.size();
  for (; left >= 8; p += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    hash = (hash ^ word) * kMixer;
    hash ^= hash >> 32;
  }
  uint64_t tail = 0;
  if (left != 0) std::memcpy(&tail, p, left);
  hash = (hash ^ tail) * kMixer;
  hash ^= hash >> 29;
  return hash * kMixer;
}

void Vocab::reserve(size_t n_tokens, size_t n_bytes) {
  texts_.reserve(n_tokens, n_bytes);
  kinds_.reserve(n_tokens);
}

void Vocab::add(std::string_view text, TokenKind kind) {
  texts_.add(text);
  kinds_.push_back(kind);
  longest_ = std::max(longest_, text.size());
}

void Vocab::index() {
  slots_.assign(table_size(kinds_.size()), Slot{});
  const size_t mask = slots_.size() - 1;
  for (int32_t id = 0; id < size(); ++id) {
    if (kind(id) == TokenKind::kUnused) continue;
    const uint64_t hash = hash_text(text(id));
    const uint32_t tag = static_cast<uint32_t>(hash >> 32);
    size_t i = hash & mask;
    while (slots_[i].id >= 0 && (slots_[i].hash != tag || text(slots_[i].id) != text(id))) i = (i + 1) & mask;
    if (slots_[i].id < 0) slots_[i] = {tag, id};
  }
}

int32_t Vocab::find(std::string_view wanted) const {
  if (slots_.empty() || wanted.size() > longest_) return -1;
  const size_t mask = slots_.size() - 1;
  const uint64_t hash = hash_text(wanted);
  const uint32_t tag = static_cast<uint32_t>(hash >> 32);
  for (size_t i = hash & mask; slots_[i].id >= 0; i = (i + 1) & mask) {
    if (slots_[i].hash == tag && text(slots_[i].id) == wanted) return slots_[i].id;
  }
  return -1;
}

MergeTable::MergeTable(size_t n_merges) : slots_(table_size(n_merges)), mask_(slots_.size() - 1) {}

void MergeTable::add(int32_t left, int32_t right, uint32_t rank, int32_t merged) {
  const uint64_t key = make_key(left, right);
  size_t i = start(key);
  while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
  if (slots_[i].key == kEmpty) slots_[i] = {key, {rank, merged}};
}

ByteAlphabet::ByteAlphabet() {
  std::memset(bytes_, -1, sizeof bytes_);
  uint16_t next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    code_points_[b] = printable ? static_cast<uint16_t>(b) : next++;
    bytes_[code_points_[b]] = static_cast<int16_t>(b);
  }
}

void ByteAlphabet::encode(std::string_view bytes, std::string& out) const {
  for (char c : bytes) append_utf8(out, code_points_[static_cast<uint8_t>(c)]);
}

void ByteAlphabet::decode(std::string_view text, std::string& out) const {
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = static_cast<uint8_t>(text[i]);
    if (lead < 0x80) {
      const int byte = bytes_[lead];
      out += byte < 0 ? text[i] : static_cast<char>(byte);
      ++i;
      continue;
    }
    const Utf8Step step = utf8_step(text.substr(i));
    int byte = -1;
    if (step.kind == Utf8Step::Kind::kValid && step.length == 2) {
      byte = this->byte((lead & 0x1Fu) << 6 | (static_cast<uint8_t>(text[i + 1]) & 0x3Fu));
    }
    if (byte >= 0) {
      out += static_cast<char>(byte);
    } else {
      out += text.substr(i, step.length);
    }
    i += step.length;
  }
}

}  // namespace dspark
