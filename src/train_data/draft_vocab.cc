#include "train_data/draft_vocab.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "formats/json_reader.h"
#include "train_data/jobs.h"

namespace dspark {

std::vector<int32_t> most_frequent_ids(std::span<const int64_t> counts, int32_t size) {
  std::vector<int32_t> ids(counts.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto more = [counts](int32_t a, int32_t b) {
    const int64_t count_a = counts[static_cast<size_t>(a)], count_b = counts[static_cast<size_t>(b)];
    return count_a != count_b ? count_a > count_b : a < b;
  };
  std::partial_sort(ids.begin(), ids.begin() + size, ids.end(), more);
  ids.resize(static_cast<size_t>(size));
  std::sort(ids.begin(), ids.end());
  return ids;
}

VocabCounter::VocabCounter(int32_t vocab_size)
    : counts_(static_cast<size_t>(vocab_size)), held_out_counts_(static_cast<size_t>(vocab_size)) {}

Status VocabCounter::add(const CorpusRecord& record) {
  const bool held_out = hash_of(0, record.prompt_id(), "held out") % kHeldOutOneIn == 0;
  for (const int32_t token : record.tokens) {
    if (token < 0 || static_cast<size_t>(token) >= counts_.size()) {
      return corrupt_data(fmt::format("record '{}': token id {} is not in the vocabulary of {}", record.id,
                                      token, counts_.size()));
    }
    ++counts_[static_cast<size_t>(token)];
    if (held_out) ++held_out_counts_[static_cast<size_t>(token)];
  }
  n_tokens_ += static_cast<int64_t>(record.tokens.size());
  if (held_out) held_out_.push_back({record.task, record.tokens, record.prompt_tokens});
  return ok_status();
}

std::vector<int32_t> VocabCounter::choose(int32_t size) const {
  return most_frequent_ids(counts_, size);
}

std::map<std::string, Coverage> VocabCounter::held_out_coverage(int32_t size) const {
  std::vector<int64_t> others(counts_.size());
  for (size_t i = 0; i < others.size(); ++i) others[i] = counts_[i] - held_out_counts_[i];
  std::vector<bool> in(counts_.size());
  for (const int32_t id : most_frequent_ids(others, size)) in[static_cast<size_t>(id)] = true;
  std::map<std::string, Coverage> coverage;
  std::vector<bool> in_prompt(counts_.size());
  for (const HeldOut& record : held_out_) {
    const auto n_prompt = static_cast<size_t>(record.prompt_tokens);
    for (size_t i = 0; i < n_prompt; ++i) in_prompt[static_cast<size_t>(record.tokens[i])] = true;
    Coverage& task = coverage[record.task];
    for (size_t i = n_prompt; i < record.tokens.size(); ++i) {
      const auto token = static_cast<size_t>(record.tokens[i]);
      ++task.n_tokens;
      if (in[token]) ++task.n_in;
      if (in[token] || in_prompt[token]) ++task.n_in_or_prompt;
    }
    for (size_t i = 0; i < n_prompt; ++i) in_prompt[static_cast<size_t>(record.tokens[i])] = false;
  }
  return coverage;
}

std::string draft_vocab_json(std::span<const int32_t> ids, int32_t vocab_size,
                             const std::string& target_name) {
  const nlohmann::ordered_json object = {
      {"vocab_size", vocab_size},
      {"size", ids.size()},
      {"target_model", target_name},
      {"ids", ids},
  };
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Result<DraftVocab> read_draft_vocab(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const nlohmann::json object, read_json_file(path));
  const auto wrong = [&path](const char* what) { return corrupt_data(path + ": " + what); };
  if (!object.is_object()) return wrong("want a JSON object");
  DraftVocab vocab;
  const auto size = object.find("vocab_size");
  if (size == object.end() || !size->is_number_unsigned() || size->get<uint64_t>() > INT32_MAX) {
    return wrong("vocab_size: want a number of tokens");
  }
  vocab.vocab_size = static_cast<int32_t>(size->get<uint64_t>());
  if (const auto name = object.find("target_model"); name != object.end() && name->is_string()) {
    vocab.target_model = name->get<std::string>();
  }
  const auto ids = object.find("ids");
  if (ids == object.end() || !ids->is_array() || ids->empty())
    return wrong("ids: want an array of token ids");
  for (const auto& id : *ids) {
    const bool fine = id.is_number_unsigned() &&
                      id.get<uint64_t>() < static_cast<uint64_t>(vocab.vocab_size) &&
                      (vocab.ids.empty() || id.get<int32_t>() > vocab.ids.back());
    if (!fine) return wrong("ids: want ascending token ids below vocab_size");
    vocab.ids.push_back(id.get<int32_t>());
  }
  return vocab;
}

}  // namespace dspark
