#include "train_data/corpus.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "formats/json_reader.h"

namespace dspark {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxLineBytes = size_t{64} << 20;

Status wrong(const std::string& where, const char* field, const char* expected) {
  return corrupt_data(fmt::format("{}: {}: want {}", where, field, expected));
}

Status read_text(const json& object, const char* field, const std::string& where, std::string& out) {
  const auto it = object.find(field);
  if (it == object.end() || !it->is_string()) return wrong(where, field, "a text");
  out = it->get<std::string>();
  return ok_status();
}

Status read_ids(const json& object, const std::string& where, CorpusRecord& record) {
  const auto tokens = object.find("tokens");
  if (tokens == object.end() || !tokens->is_array()) return wrong(where, "tokens", "an array of token ids");
  record.tokens.reserve(tokens->size());
  for (const json& token : *tokens) {
    if (!token.is_number_unsigned() || token.get<uint64_t>() > INT32_MAX) {
      return wrong(where, "tokens", "an array of token ids");
    }
    record.tokens.push_back(static_cast<int32_t>(token.get<uint64_t>()));
  }
  const auto n_prompt = object.find("prompt_tokens");
  if (n_prompt == object.end() || !n_prompt->is_number_unsigned() ||
      n_prompt->get<uint64_t>() > record.tokens.size()) {
    return wrong(where, "prompt_tokens", "a number up to that of tokens");
  }
  record.prompt_tokens = static_cast<int32_t>(n_prompt->get<uint64_t>());
  return ok_status();
}

Status read_turns(const json& object, const std::string& where, CorpusRecord& record) {
  const auto turns = object.find("conversations");
  if (turns == object.end() || !turns->is_array()) return wrong(where, "conversations", "an array");
  for (const json& turn : *turns) {
    ChatMessage message;
    if (!turn.is_object()) return wrong(where, "conversations", "objects with role and content");
    DSPARK_RETURN_IF_ERROR(read_text(turn, "role", where + ": conversations", message.role));
    DSPARK_RETURN_IF_ERROR(read_text(turn, "content", where + ": conversations", message.content));
    record.conversations.push_back(std::move(message));
  }
  return ok_status();
}

/// The lines of a file one by one. returns: false at the end.
class LineReader {
 public:
  explicit LineReader(const std::string& path) : path_(path), in_(path, std::ios::binary) {}
  bool is_open() const { return in_.is_open(); }
  bool next() {
    begin_ += size_;
    if (!std::getline(in_, line_)) return false;
    whole_ = !in_.eof();
    size_ = line_.size() + (whole_ ? 1 : 0);
    ++number_;
    return true;
  }
  const std::string& line() const { return line_; }
  bool whole() const { return whole_; }  // a line break ended it
  uint64_t begin() const { return begin_; }
  bool blank() const { return line_.find_first_not_of(" \t\r") == std::string::npos; }
  std::string where() const { return fmt::format("{}: line {}", path_, number_); }

 private:
  std::string path_;
  std::ifstream in_;
  std::string line_;
  uint64_t begin_ = 0;
  uint64_t size_ = 0;
  int64_t number_ = 0;
  bool whole_ = false;
};

}  // namespace

std::string corpus_line(const CorpusRecord& record) {
  ordered_json turns = ordered_json::array();
  for (const ChatMessage& turn : record.conversations) {
    turns.push_back({{"role", turn.role}, {"content", turn.content}});
  }
  const ordered_json object = {
      {"id", record.id},
      {"task", record.task},
      {"conversations", turns},
      {"tokens", record.tokens},
      {"prompt_tokens", record.prompt_tokens},
      {"temperature", record.temperature},
      {"seed", record.seed},
      {"finish_reason", record.finish_reason},
  };
  return object.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

Result<CorpusRecord> parse_corpus_line(std::string_view line, const std::string& where) {
  if (line.size() > kMaxLineBytes) return corrupt_data(where + ": longer than any record");
  DSPARK_ASSIGN_OR_RETURN(const json object, parse_json(line, where));
  if (!object.is_object()) return corrupt_data(where + ": want a JSON object");
  CorpusRecord record;
  DSPARK_RETURN_IF_ERROR(read_text(object, "id", where, record.id));
  DSPARK_RETURN_IF_ERROR(read_text(object, "task", where, record.task));
  DSPARK_RETURN_IF_ERROR(read_text(object, "finish_reason", where, record.finish_reason));
  DSPARK_RETURN_IF_ERROR(read_turns(object, where, record));
  DSPARK_RETURN_IF_ERROR(read_ids(object, where, record));
  const auto temperature = object.find("temperature");
  if (temperature == object.end() || !temperature->is_number())
    return wrong(where, "temperature", "a number");
  record.temperature = temperature->get<double>();
  const auto seed = object.find("seed");
  if (seed == object.end() || !seed->is_number_unsigned()) return wrong(where, "seed", "a whole number");
  record.seed = seed->get<uint64_t>();
  return record;
}

Status for_each_record(const std::string& path, const std::function<Status(CorpusRecord&&)>& visit) {
  LineReader reader(path);
  if (!reader.is_open()) return not_found(path + ": cannot open");
  while (reader.next()) {
    if (reader.blank()) continue;
    DSPARK_ASSIGN_OR_RETURN(CorpusRecord record, parse_corpus_line(reader.line(), reader.where()));
    DSPARK_RETURN_IF_ERROR(visit(std::move(record)));
  }
  return ok_status();
}

Result<CorpusFile> CorpusFile::open(const std::string& path,
                                    const std::function<Status(CorpusRecord&&)>& visit) {
  CorpusFile out;
  out.path_ = path;
  out.file_ = std::fopen(path.c_str(), "abe");
  if (out.file_ == nullptr) return invalid_argument(path + ": cannot open: " + std::strerror(errno));
  LineReader reader(path);
  if (!reader.is_open()) return invalid_argument(path + ": cannot read");
  while (reader.next()) {
    if (!reader.whole()) {  // cut off while it was written
      if (::truncate(path.c_str(), static_cast<off_t>(reader.begin())) != 0) {
        return resource_exhausted(path + ": cannot cut the torn last line: " + std::strerror(errno));
      }
      break;
    }
    if (reader.blank()) continue;
    DSPARK_ASSIGN_OR_RETURN(CorpusRecord record, parse_corpus_line(reader.line(), reader.where()));
    DSPARK_RETURN_IF_ERROR(visit(std::move(record)));
  }
  return out;
}

CorpusFile::CorpusFile(CorpusFile&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, nullptr)) {}
CorpusFile& CorpusFile::operator=(CorpusFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}
CorpusFile::~CorpusFile() {
  if (file_ != nullptr) std::fclose(file_);
}

Status CorpusFile::append(const CorpusRecord& record) {
  const std::string line = corpus_line(record) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_) == line.size() && std::fflush(file_) == 0) {
    return ok_status();
  }
  return resource_exhausted(path_ + ": cannot write: " + std::strerror(errno));
}

Result<std::vector<PromptRecord>> read_prompts(std::span<const std::string> paths) {
  std::vector<PromptRecord> prompts;
  std::unordered_set<std::string> ids;
  for (const std::string& path : paths) {
    LineReader reader(path);
    if (!reader.is_open()) return not_found(path + ": cannot open the prompts");
    while (reader.next()) {
      if (reader.blank()) continue;
      const std::string where = reader.where();
      DSPARK_ASSIGN_OR_RETURN(const json object, parse_json(reader.line(), where));
      if (!object.is_object()) return corrupt_data(where + ": want a JSON object");
      PromptRecord prompt;
      DSPARK_RETURN_IF_ERROR(read_text(object, "task", where, prompt.task));
      DSPARK_RETURN_IF_ERROR(read_text(object, "prompt", where, prompt.prompt));
      const auto id = object.find("id");
      const bool named = id != object.end() && (id->is_string() || id->is_number_integer());
      if (!named) return wrong(where, "id", "a number or a text");
      prompt.id = prompt.task + "/" + (id->is_string() ? id->get<std::string>() : id->dump());
      if (!ids.insert(prompt.id).second) {
        return invalid_argument(fmt::format("{}: id: '{}' was there before", where, prompt.id));
      }
      prompts.push_back(std::move(prompt));
    }
  }
  return prompts;
}

}  // namespace dspark
