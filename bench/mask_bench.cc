// What masks of constrained decoding cost over a vocabulary of 150,000 tokens (Google Benchmark).

#include <benchmark/benchmark.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "constrain/grammar_constraint.h"

namespace dspark {
namespace {

constexpr int32_t kVocabSize = 150000;

// Bytes, then words as byte-level vocabularies have them: letters with or without a space in front, digits,
// punctuation.
std::shared_ptr<const TokenTrie> vocabulary() {
  static const std::shared_ptr<const TokenTrie> trie = [] {
    std::mt19937 random(1);
    std::vector<std::string> texts;
    for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
    constexpr std::string_view kLetters = "etaoinshrdlucmfwypvbgkjqxzETAOIN";
    constexpr std::string_view kSigns = "{}[]\":,.\n\\/()=<>-_ 0123456789";
    while (texts.size() < static_cast<size_t>(kVocabSize)) {
      std::string text = random() % 2 == 0 ? " " : "";
      const bool is_word = random() % 8 != 0;
      const std::string_view alphabet = is_word ? kLetters : kSigns;
      for (size_t n = 2 + random() % (is_word ? 8 : 3); n > 0; --n) {
        text += alphabet[std::min(random() % alphabet.size(), random() % alphabet.size())];
      }
      texts.push_back(std::move(text));
    }
    return std::make_shared<const TokenTrie>(
        kVocabSize, [&](int32_t id) -> std::string_view { return texts[static_cast<size_t>(id)]; });
  }();
  return trie;
}

constexpr const char* kSchema =
    R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,
  "maximum":150},"tags":{"type":"array","items":{"enum":["red","green","blue"]}},"note":{"type":"string","maxLength":200}},
  "required":["name","age","tags","note"],"additionalProperties":false})";

std::unique_ptr<ConstraintState> state_behind(const GrammarConstraint& constraint, std::string_view text) {
  auto state = constraint.start({});
  for (char byte : text) state->advance(static_cast<uint8_t>(byte));
  return state;
}

constexpr std::string_view kPlaces[] = {
    "{\"", "{\"name\":\"An", "{\"name\":\"An\",\"age\":", "{\"name\":\"An\",\"age\":7,\"tags\":[\"",
    "{\"name\":\"An\",\"age\":7,\"tags\":[],\"note\":\"ab"};

// The first mask at a place: argument 0 a member's name, 1 a string, 2 a number, 3 an enum, 4 a string with a
// maximum length.
void new_mask(benchmark::State& bench) {
  const Grammar grammar = *Grammar::from_json_schema(kSchema);
  const std::string_view place = kPlaces[bench.range(0)];
  for (auto _ : bench) {
    bench.PauseTiming();
    const GrammarConstraint constraint(grammar, vocabulary());
    const auto state = state_behind(constraint, place);
    bench.ResumeTiming();
    benchmark::DoNotOptimize(state->allowed().data());
  }
  bench.SetLabel(std::string(place));
}
BENCHMARK(new_mask)->DenseRange(0, 4)->Unit(benchmark::kMicrosecond);

// Masks and steps along a whole text, as the engine asks for them; per token.
void whole_text(benchmark::State& bench) {
  const Grammar grammar = *Grammar::from_json_schema(kSchema);
  const GrammarConstraint constraint(grammar, vocabulary());
  const std::string text =
      R"({"name": "Anna Example", "age": 42, "tags": ["red", "blue", "blue"], "note": "A note of some length."})";
  for (auto _ : bench) {
    const auto state = constraint.start({});
    for (char byte : text) {
      benchmark::DoNotOptimize(state->allowed().data());
      state->advance(static_cast<uint8_t>(byte));
    }
  }
  bench.SetItemsProcessed(static_cast<int64_t>(bench.iterations() * text.size()));
}
BENCHMARK(whole_text)->Unit(benchmark::kMicrosecond);

void compile_schema(benchmark::State& bench) {
  for (auto _ : bench) benchmark::DoNotOptimize(Grammar::from_json_schema(kSchema));
}
BENCHMARK(compile_schema)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace dspark
