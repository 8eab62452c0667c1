#pragma once
// The corpus: answers that a target gave, one JSON object per line.
//   {"id": "gsm8k/12#0", "task": "gsm8k", "conversations": [{"role": "user", "content": ...}, {"role":
//    "assistant", "content": ...}], "tokens": [ids of prompt and answer], "prompt_tokens": n,
//    "temperature": 0.8, "seed": 123, "finish_reason": "stop"}
// Token ids are kept, so nothing is tokenised again: what was generated is what is trained on.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/chat_prompt.h"

namespace dspark {

/// One answer.
struct CorpusRecord {
  std::string id;  // "task/prompt#sample", unique in a corpus
  std::string task;
  std::vector<ChatMessage> conversations;  // ends with the answer
  std::vector<int32_t> tokens;             // prompt, then answer with its closing token
  int32_t prompt_tokens = 0;               // of `tokens`; what follows is supervised
  double temperature = 0.0;
  uint64_t seed = 0;
  std::string finish_reason;  // "stop", "length"

  std::span<const int32_t> answer() const {
    return std::span(tokens).subspan(static_cast<size_t>(prompt_tokens));
  }
  /// Content of the last turn; empty without turns.
  std::string_view answer_text() const {
    return conversations.empty() ? std::string_view() : std::string_view(conversations.back().content);
  }
  /// Id of the prompt: `id` without "#sample".
  std::string_view prompt_id() const { return std::string_view(id).substr(0, id.rfind('#')); }
};

/// One line, without the line break. Bytes that are not UTF-8 (an answer cut inside a character) become
/// U+FFFD.
std::string corpus_line(const CorpusRecord& record);
/// errors: corrupt_data naming `where` and the field.
Result<CorpusRecord> parse_corpus_line(std::string_view line, const std::string& where);

/// Calls `visit` for every record of a file, in order, until it returns an error. Memory: one line.
/// errors: those of the file, of a line (naming its number) and of `visit`.
Status for_each_record(const std::string& path, const std::function<Status(CorpusRecord&&)>& visit);

/// A corpus that is being written, line by line: after a kill at any moment all lines but the last are whole.
class CorpusFile {
 public:
  /// Opens `path` for appending and reads what an earlier run left: `visit` gets every whole record, a torn
  /// last line is cut off. errors: those of the file; corrupt_data for a bad line before the last.
  static Result<CorpusFile> open(const std::string& path, const std::function<Status(CorpusRecord&&)>& visit);
  CorpusFile(CorpusFile&& other) noexcept;
  CorpusFile& operator=(CorpusFile&& other) noexcept;
  CorpusFile(const CorpusFile&) = delete;
  CorpusFile& operator=(const CorpusFile&) = delete;
  ~CorpusFile();

  /// Appends a record and hands it to the operating system. errors: resource_exhausted.
  Status append(const CorpusRecord& record);

 private:
  CorpusFile() = default;
  std::string path_;
  std::FILE* file_ = nullptr;
};

/// Something to ask: one line {"task": ..., "id": number or text, "prompt": ...} of a prompt file.
struct PromptRecord {
  std::string task;
  std::string id;  // "task/id"
  std::string prompt;
};

/// Reads prompt files, in order. errors: those of the files; corrupt_data naming line and field;
/// invalid_argument for an id that two prompts share.
Result<std::vector<PromptRecord>> read_prompts(std::span<const std::string> paths);

}  // namespace dspark
