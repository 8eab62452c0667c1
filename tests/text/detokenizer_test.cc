#include "text/detokenizer.h"

#include <random>

#include "text/tokenizer_fixtures.h"
#include "text/utf8.h"

namespace dspark::test {
namespace {

using Ids = std::vector<int32_t>;

std::vector<Tokenizer> both_kinds() {
  std::vector<Tokenizer> out;
  Result<Tokenizer> bytes = tokenizer_from(read_json_file(tokenizer_data("byte_level.json")));
  Result<Tokenizer> fallback = Tokenizer::from_gguf(sentencepiece_gguf());
  EXPECT_TRUE(bytes.ok() && fallback.ok());
  out.push_back(std::move(bytes).value());
  out.push_back(std::move(fallback).value());
  return out;
}

// At every point of the stream: what came so far plus a flush is the decoding of the tokens so far.
void check_stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  StreamingDetokenizer stream(tokenizer, skip_special);
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string piece = stream.push(ids[i]);
    ASSERT_TRUE(is_valid_utf8(piece));
    text += piece;
    StreamingDetokenizer cut = stream;
    const Ids so_far(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(i) + 1);
    ASSERT_EQ(text + cut.flush(), to_valid_utf8(tokenizer.decode(so_far, skip_special)));
  }
  text += stream.flush();
  EXPECT_EQ(text, to_valid_utf8(tokenizer.decode(ids, skip_special)));
  EXPECT_EQ(stream.flush(), "");
}

TEST(Detokenizer, EqualsDecodingAtEveryToken) {
  for (const Tokenizer& tokenizer : both_kinds()) {
    for (const std::string text :
         {"caf\u00e9 \u4f60\u597d \U0001F600\U0001F468\u200D\U0001F469 <|im_end|> tail",
          "\u0928\u092E\u0938\u094D\u0924\u0947 \u05E9\u05DC\u05D5\u05DD", "", "plain"}) {
      const Ids ids = tokenizer.encode(text, true, true);
      check_stream(tokenizer, ids, true);
      check_stream(tokenizer, ids, false);
    }
  }
}

TEST(Detokenizer, AnyTokensInAnyOrder) {
  std::mt19937 random(11);
  for (const Tokenizer& tokenizer : both_kinds()) {
    for (int round = 0; round < 40; ++round) {
      Ids ids;
      for (int i = 0; i < 60; ++i) {
        // Mostly the tokens of single bytes: they make broken characters of every sort.
        const uint32_t range = round % 2 == 0 ? 280u : static_cast<uint32_t>(tokenizer.vocab_size()) + 3;
        ids.push_back(static_cast<int32_t>(random() % range) - 1);
      }
      check_stream(tokenizer, ids, round % 3 == 0);
    }
  }
}

TEST(Detokenizer, HoldsBackOnlyAnUnfinishedCharacter) {
  const Result<Tokenizer> t = Tokenizer::from_gguf(sentencepiece_gguf());
  ASSERT_TRUE(t.ok());
  const auto byte = [&](const char* text) { return t->find_token(text); };
  StreamingDetokenizer stream(*t);
  EXPECT_EQ(stream.push(byte("<0xF0>")), "");
  EXPECT_EQ(stream.push(byte("<0x9F>")), "");
  EXPECT_EQ(stream.push(byte("<0x98>")), "");
  EXPECT_EQ(stream.push(byte("<0x80>")), "\U0001F600");
  EXPECT_EQ(stream.push(byte("<0xE4>")), "");
  EXPECT_EQ(stream.push(byte("<0x41>")),
            "\uFFFD"
            "A");  // known to be broken at once
  EXPECT_EQ(stream.push(byte("<0xFF>")), "\uFFFD");
  EXPECT_EQ(stream.push(byte("<0xE4>")), "");
  EXPECT_EQ(stream.push(byte("<0xBD>")), "");
  EXPECT_EQ(stream.flush(), "\uFFFD");  // one character, one mark
}

TEST(Utf8, StrictSteps) {
  const struct {
    const char* bytes;
    const char* valid;
  } cases[] = {
      {"a", "a"},
      {"\xC3\xA9", "\xC3\xA9"},
      {"\xC0\x80", "\uFFFD\uFFFD"},                      // overlong
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},            // surrogate
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // beyond 10FFFF
      {"\xF0\x9F\x98", "\uFFFD"},                        // cut off
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
       "A",
       "\uFFFD\uFFFD\uFFFD\uFFFD"
       "A"},  // Unicode table 3-11
  };
  for (const auto& c : cases) EXPECT_EQ(to_valid_utf8(c.bytes), c.valid);
  EXPECT_FALSE(is_valid_utf8("12345678\xFF"));
  EXPECT_TRUE(is_valid_utf8("1234567890 \u4f60"));
}

TEST(Utf8, LenientRepairAndMask) {
  EXPECT_EQ(repair_for_byte_level(std::string_view("\xC0\x80", 2)), std::string(1, '\0'));
  EXPECT_EQ(repair_for_byte_level("\xED\xA0\x80"), "\xED\xA0\x80");
  EXPECT_EQ(repair_for_byte_level("\xE2\x82 x"), "\uFFFD\uFFFD x");
  EXPECT_EQ(repair_for_byte_level("\xF4\x90\x80\x80").size(), 12u);
  EXPECT_EQ(mask_invalid("a\xED\xA0\x80\xFF\xE2\x82"), "a\uE000\x1A\x1A\x1A");
}

}  // namespace
}  // namespace dspark::test
