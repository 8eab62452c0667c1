#include "text/utf8.h"

#include <cstring>

namespace dspark {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

uint8_t byte_at(std::string_view s, size_t i) {
  return static_cast<uint8_t>(s[i]);
}

// Bytes from the start that are plain ASCII, eight at a time.
size_t ascii_prefix(std::string_view s) {
  size_t i = 0;
  for (; i + 8 <= s.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, s.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < s.size() && byte_at(s, i) < 0x80) ++i;
  return i;
}

// Allowed range of the second byte (Unicode table 3-7): it excludes overlong forms, surrogates, > 10FFFF.
void second_byte_range(uint8_t lead, uint8_t& low, uint8_t& high) {
  low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
}

// Decodes without checking for overlong forms. returns: bytes used, 0 when this is no sequence.
size_t decode_lenient(std::string_view s, uint32_t& code_point) {
  const uint8_t lead = byte_at(s, 0);
  if (lead < 0x80) {
    code_point = lead;
    return 1;
  }
  if (lead < 0xC0 || lead >= 0xF8) return 0;
  const size_t length = utf8_announced_length(lead);
  if (length > s.size()) return 0;
  code_point = lead & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte_at(s, i) & 0xC0) != 0x80) return 0;
    code_point = code_point << 6 | (byte_at(s, i) & 0x3Fu);
  }
  return code_point <= 0x10FFFF ? length : 0;
}

}  // namespace

Utf8Step utf8_step(std::string_view bytes) {
  const uint8_t lead = byte_at(bytes, 0);
  if (lead < 0x80) return {Utf8Step::Kind::kValid, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Step::Kind::kInvalid, 1};
  const size_t length = utf8_announced_length(lead);
  uint8_t low = 0;
  uint8_t high = 0;
  second_byte_range(lead, low, high);
  for (size_t i = 1; i < length; ++i) {
    if (i >= bytes.size()) return {Utf8Step::Kind::kIncomplete, i};
    if (byte_at(bytes, i) < low || byte_at(bytes, i) > high) return {Utf8Step::Kind::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Step::Kind::kValid, length};
}

void append_utf8(std::string& out, uint32_t code_point) {
  const auto put = [&out](uint32_t byte) { out += static_cast<char>(byte); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18 & 0x07));
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

bool is_valid_utf8(std::string_view text) {
  for (;;) {
    text.remove_prefix(ascii_prefix(text));
    if (text.empty()) return true;
    const Utf8Step step = utf8_step(text);
    if (step.kind != Utf8Step::Kind::kValid) return false;
    text.remove_prefix(step.length);
  }
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = utf8_step(bytes);
    out += step.kind == Utf8Step::Kind::kValid ? bytes.substr(0, step.length) : kReplacement;
    bytes.remove_prefix(step.length);
  }
  return out;
}

std::string repair_for_byte_level(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    uint32_t code_point = 0;
    const size_t length = decode_lenient(bytes, code_point);
    if (length == 0) {
      out += kReplacement;
      bytes.remove_prefix(1);
      continue;
    }
    append_utf8(out, code_point);
    bytes.remove_prefix(length);
  }
  return out;
}

std::string mask_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    size_t length = step.length;
    if (step.kind == Utf8Step::Kind::kValid) {
      out += text.substr(0, length);
    } else if (text.size() >= 3 && byte_at(text, 0) == 0xED && byte_at(text, 1) >= 0xA0 &&
               byte_at(text, 1) <= 0xBF && (byte_at(text, 2) & 0xC0) == 0x80) {
      out += "\xEE\x80\x80";
      length = 3;
    } else {
      out.append(length, '\x1A');
    }
    text.remove_prefix(length);
  }
  return out;
}

}  // namespace dspark
