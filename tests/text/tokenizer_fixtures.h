#pragma once
// The vocabularies of tests/data/tokenizer, as files and as GGUF metadata.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/test_paths.h"
#include "text/tokenizer.h"

namespace dspark::test {

inline std::filesystem::path tokenizer_data(const std::string& name) {
  return data_dir() / "tokenizer" / name;
}

inline nlohmann::json read_json_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  return nlohmann::json::parse(in, nullptr, false);
}

inline std::vector<nlohmann::json> read_json_lines(const std::filesystem::path& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  std::vector<nlohmann::json> out;
  for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

inline Result<Tokenizer> tokenizer_from(const nlohmann::json& tokenizer_json,
                                        const nlohmann::json& config = nullptr,
                                        const nlohmann::json& generation_config = nullptr) {
  const std::string text = tokenizer_json.dump();
  const std::string config_text = config.is_null() ? "" : config.dump();
  HfTokenizerFiles files;
  files.tokenizer = text;
  files.config = config_text;
  return Tokenizer::from_json(files, nlohmann::json(), generation_config);
}

/// A byte-level tokenizer.json as the GGUF keys that a converter writes for it.
inline MetadataMap gguf_of(const nlohmann::json& tokenizer_json, const std::string& pre) {
  const nlohmann::json& vocab = tokenizer_json["model"]["vocab"];
  std::vector<std::string> tokens(vocab.size());
  std::vector<int64_t> types(vocab.size(), 1);
  for (const auto& [text, id] : vocab.items()) tokens[id.get<size_t>()] = text;
  for (const auto& token : tokenizer_json["added_tokens"]) types[token["id"].get<size_t>()] = 3;
  std::vector<std::string> merges;
  for (const auto& merge : tokenizer_json["model"]["merges"]) merges.push_back(merge.get<std::string>());
  return {{"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", pre},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.merges", merges},
          {"tokenizer.ggml.bos_token_id", int64_t{1}},
          {"tokenizer.ggml.eos_token_id", int64_t{2}}};
}

/// The SentencePiece fixture as GGUF keys.
inline MetadataMap sentencepiece_gguf() {
  const nlohmann::json model = read_json_file(tokenizer_data("sentencepiece.json"));
  return {{"tokenizer.ggml.model", std::string("llama")},
          {"tokenizer.ggml.tokens", model["tokens"].get<std::vector<std::string>>()},
          {"tokenizer.ggml.scores", model["scores"].get<std::vector<double>>()},
          {"tokenizer.ggml.token_type", model["types"].get<std::vector<int64_t>>()},
          {"tokenizer.ggml.bos_token_id", model["bos"].get<int64_t>()},
          {"tokenizer.ggml.eos_token_id", model["eos"].get<int64_t>()},
          {"tokenizer.ggml.unknown_token_id", model["unk"].get<int64_t>()},
          {"tokenizer.ggml.add_space_prefix", false}};
}

}  // namespace dspark::test
