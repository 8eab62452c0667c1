#include "train_data/regenerate.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <memory>
#include <utility>

#include "engine/loader.h"
#include "text/chat_prompt.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

constexpr int32_t kMostHeld = 8;  // batches of jobs between the first that is not done and the newest
// Tokens of a variation over those of its prompt; targets that write on for longer answer themselves.
constexpr int64_t kLongerVariation = 2;

/// A job on its way. The callbacks of its requests write `output` and `reason`.
struct Running {
  enum class Phase : uint8_t { kUserTurn, kAnswer, kDone };

  const Job* job = nullptr;
  Phase phase = Phase::kAnswer;
  std::vector<int32_t> beginning;  // of a variation; then all words of its prompt
  std::string prompt;              // the user's words
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> output;
  std::vector<float> log_sum_exp;          // of the logits behind each token of `output`
  int32_t n_answer = -1;                   // tokens of `output` that are the answer; -1: it has not ended
  FinishReason end = FinishReason::kNone;  // of the answer; the request is then cancelled
  bool has_features = false;
  TargetCacheSample sample;
  FinishReason reason = FinishReason::kNone;
  std::string left_out;  // why there is no record; empty: there is one
};

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

/// The loop of regenerate(): submits, steps, collects, in the order of the jobs.
class Regeneration {
 public:
  Regeneration(Engine& engine, const PromptCodec& codec, const RegenerateOptions& options, int64_t n_before,
               const std::function<Status(CorpusRecord&&)>& sink, const FeatureSink* features)
      : engine_(engine),
        codec_(codec),
        options_(options),
        n_before_(n_before),
        sink_(sink),
        features_(features) {}

  Result<RegenerateCounts> run(std::span<const Job> jobs,
                               const std::function<void(const RegenerateCounts&)>& on_step,
                               const std::atomic<bool>* cancel) {
    size_t next = 0;
    while (!counts_.finished) {
      if (cancel != nullptr && cancel->load()) break;
      while (may_start() && next < jobs.size()) DSPARK_RETURN_IF_ERROR(start(jobs[next++]));
      engine_.step();
      for (Running* running : std::exchange(ended_, {})) DSPARK_RETURN_IF_ERROR(advance(*running));
      DSPARK_RETURN_IF_ERROR(flush());
      if (next == jobs.size() && running_.empty()) counts_.finished = true;
      if (on_step) on_step(counts_);
    }
    drain();
    return counts_;
  }

  ~Regeneration() { drain(); }

 private:
  /// Answers that are done wait for those before them; with features that is a matter of memory.
  bool may_start() const {
    return n_open_ < options_.batch && std::ssize(running_) < int64_t{kMostHeld} * options_.batch;
  }

  /// Nothing may call back into this object after it is gone.
  void drain() {
    for (const RequestId id : requests_) engine_.cancel(id);
    requests_.clear();
    while (engine_.has_work()) engine_.step();
  }

  Status start(const Job& job) {
    running_.push_back(std::make_unique<Running>());
    Running& running = *running_.back();
    running.job = &job;
    const bool varies = !job.beginning.empty();
    if (job.prompt != nullptr && (!varies || !codec_.self_writes_prompt)) {
      running.prompt = varies ? job.beginning : job.prompt->prompt;
      DSPARK_ASSIGN_OR_RETURN(running.prompt_ids, codec_.encode(running.prompt));
      return submit_answer(running);
    }
    if (!codec_.self_writes_prompt) {
      running.prompt_ids = codec_.self_header;
      return submit_answer(running);
    }
    running.phase = Running::Phase::kUserTurn;
    running.beginning = varies ? codec_.encode_words(job.beginning) : std::vector<int32_t>();
    GenerateRequest request;
    request.prompt = codec_.self_header;
    request.prompt.insert(request.prompt.end(), running.beginning.begin(), running.beginning.end());
    if (std::ssize(request.prompt) > options_.max_prompt) return leave_out(running, "prompt too long");
    request.max_tokens = options_.max_user_tokens;
    if (varies) {
      const auto n_words = std::ssize(codec_.encode_words(job.prompt->prompt));
      const auto n_left = std::max<int64_t>(kLongerVariation * n_words - std::ssize(running.beginning), 1);
      request.max_tokens = static_cast<int32_t>(std::min<int64_t>(request.max_tokens, n_left));
    }
    request.sampling.temperature = static_cast<float>(options_.user_temperature);
    request.sampling.top_p = options_.user_top_p;
    request.sampling.seed = job.user_seed;
    request.max_drafts = 0;  // no features
    return submit(running, std::move(request));
  }

  Status submit_answer(Running& running) {
    running.phase = Running::Phase::kAnswer;
    if (static_cast<int64_t>(running.prompt_ids.size()) > options_.max_prompt) {
      return leave_out(running, "prompt too long");
    }
    GenerateRequest request;
    request.prompt = running.prompt_ids;
    request.max_tokens = options_.max_tokens;
    request.sampling.temperature = static_cast<float>(running.job->temperature);
    request.sampling.top_p = options_.top_p;
    request.sampling.top_k = options_.top_k;
    request.sampling.seed = running.job->seed;
    if (features_ != nullptr) {
      request.max_tokens += RegenerateOptions::kTokensBehind;
      request.ignore_eos = true;
      request.n_logprobs = 0;
    }
    return submit(running, std::move(request));
  }

  Status leave_out(Running& running, const char* why) {
    running.phase = Running::Phase::kDone;
    running.left_out = why;
    return ok_status();
  }

  Status submit(Running& running, GenerateRequest request) {
    running.output.clear();
    running.log_sum_exp.clear();
    running.reason = FinishReason::kNone;
    const auto collect = [this, &running](const StreamUpdate& update) {
      for (const TokenEvent& event : update.tokens) {
        running.output.push_back(event.token);
        running.log_sum_exp.push_back(event.log_sum_exp);
      }
      if (features_ != nullptr && running.phase == Running::Phase::kAnswer) watch_end(running, update.id);
      if (update.finish_reason == FinishReason::kNone) return;
      running.reason = update.finish_reason;
      ended_.push_back(&running);
      std::erase(requests_, update.id);
      --n_open_;
    };
    DSPARK_ASSIGN_OR_RETURN(const RequestId id, engine_.submit(std::move(request), collect));
    requests_.push_back(id);
    ++n_open_;
    return ok_status();
  }

  /// With features it is here that answers end: one token behind their last, whose row is known by then.
  void watch_end(Running& running, RequestId id) {
    const auto n = static_cast<int32_t>(running.output.size());
    if (n == 0 || running.n_answer >= 0) return;
    const std::vector<int32_t>& eos_ids = engine_.options().eos_ids;
    for (int32_t i = 0; i < std::min(n - 1, options_.max_tokens); ++i) {
      const bool stops = std::ranges::count(eos_ids, running.output[static_cast<size_t>(i)]) > 0;
      if (!stops && i + 1 < options_.max_tokens) continue;
      running.n_answer = i + 1;
      running.end = stops ? FinishReason::kStop : FinishReason::kLength;
      take_features(running);
      engine_.cancel(id);
      return;
    }
  }

  void take_features(Running& running) {
    TargetCacheSample& sample = running.sample;
    const auto n_answer = static_cast<size_t>(running.n_answer), n_prompt = running.prompt_ids.size();
    sample.input_ids = running.prompt_ids;
    sample.input_ids.insert(sample.input_ids.end(), running.output.begin(),
                            running.output.begin() + running.n_answer);
    sample.attention_mask.assign(n_prompt + n_answer, 1);
    sample.loss_mask.assign(n_prompt + n_answer, 1);
    std::fill_n(sample.loss_mask.begin(), n_prompt, uint8_t{0});
    sample.log_sum_exp.assign(n_prompt, std::numeric_limits<float>::quiet_NaN());
    sample.log_sum_exp.insert(sample.log_sum_exp.end(), running.log_sum_exp.begin() + 1,
                              running.log_sum_exp.begin() + 1 + running.n_answer);
    running.has_features = features_->tap->copy_to(sample);
  }

  /// A request ended: the next phase, or the end of the job.
  Status advance(Running& running) {
    if (running.reason == FinishReason::kError) return out_of_memory("no memory for a forward pass");
    if (features_ != nullptr && running.phase == Running::Phase::kAnswer) {
      if (!running.has_features) return internal_error(running.job->id + ": its features are missing");
      running.reason = running.end;
      running.output.resize(static_cast<size_t>(running.n_answer));
    }
    if (running.phase == Running::Phase::kUserTurn) {
      if (running.reason != FinishReason::kStop) return leave_out(running, "self-written prompt without end");
      // Together, for a tokenizer may take a space in front of the first word away.
      running.beginning.insert(running.beginning.end(), running.output.begin(), running.output.end());
      running.prompt = trimmed(codec_.decode(running.beginning));
      const std::string& ending = running.job->ending;
      if (codec_.decode(running.output).find(trimmed(ending)) == std::string::npos) running.prompt += ending;
      if (running.prompt.empty()) return leave_out(running, "empty self-written prompt");
      DSPARK_ASSIGN_OR_RETURN(running.prompt_ids, codec_.encode(running.prompt));
      return submit_answer(running);
    }
    running.phase = Running::Phase::kDone;
    return ok_status();
  }

  /// Hands over what is done, up to the first job that is not.
  Status flush() {
    while (!running_.empty() && running_.front()->phase == Running::Phase::kDone && !counts_.finished) {
      Running& running = *running_.front();
      ++counts_.jobs_done;
      if (running.left_out.empty()) {
        DSPARK_RETURN_IF_ERROR(hand_over(running));
      } else {
        ++counts_.left_out[running.left_out];
      }
      running_.pop_front();
    }
    return ok_status();
  }

  Status hand_over(Running& running) {
    CorpusRecord record;
    record.id = running.job->id;
    record.task = running.job->task;
    if (!running.prompt.empty()) record.conversations.push_back({"user", running.prompt});
    record.conversations.push_back({"assistant", codec_.decode(running.output)});
    record.prompt_tokens = static_cast<int32_t>(running.prompt_ids.size());
    record.tokens = std::move(running.prompt_ids);
    record.tokens.insert(record.tokens.end(), running.output.begin(), running.output.end());
    record.temperature = running.job->temperature;
    record.seed = running.job->seed;
    record.finish_reason = finish_reason_name(running.reason);
    ++counts_.answers;
    counts_.prompt_tokens += record.prompt_tokens;
    counts_.answer_tokens += static_cast<int64_t>(running.output.size());
    const int64_t limit = options_.max_answer_tokens;
    counts_.finished = limit >= 0 && n_before_ + counts_.answer_tokens >= limit;
    if (features_ == nullptr) return sink_(std::move(record));
    DSPARK_RETURN_IF_ERROR(sink_(CorpusRecord(record)));
    return features_->write(record, std::move(running.sample));
  }

  Engine& engine_;
  const PromptCodec& codec_;
  const RegenerateOptions& options_;
  int64_t n_before_;
  const std::function<Status(CorpusRecord&&)>& sink_;
  const FeatureSink* features_;
  RegenerateCounts counts_;
  std::deque<std::unique_ptr<Running>> running_;  // in the order of the jobs
  std::vector<Running*> ended_;                   // requests that ended in the last step
  std::vector<RequestId> requests_;
  int32_t n_open_ = 0;
};

}  // namespace

Status RegenerateOptions::validate() const {
  const auto positive = [](const char* name, int64_t value) {
    return value >= 1 ? ok_status() : invalid_argument(fmt::format("{}: {} is not positive", name, value));
  };
  DSPARK_RETURN_IF_ERROR(positive("batch", batch));
  DSPARK_RETURN_IF_ERROR(positive("max tokens", max_tokens));
  DSPARK_RETURN_IF_ERROR(positive("max prompt", max_prompt));
  DSPARK_RETURN_IF_ERROR(positive("max user tokens", max_user_tokens));
  if (int64_t{max_prompt} + max_tokens + kTokensBehind > INT32_MAX)
    return invalid_argument("max tokens: too many");
  return ok_status();
}

Result<PromptCodec> make_prompt_codec(const LoadedModel& loaded, bool raw) {
  if (loaded.tokenizer == nullptr) return unsupported(loaded.path + ": has no tokenizer");
  const Tokenizer* tokenizer = loaded.tokenizer.get();
  PromptCodec codec;
  codec.encode_words = [tokenizer](const std::string& words) {
    return tokenizer->encode(words, false, false);
  };
  codec.decode = [tokenizer](std::span<const int32_t> ids) { return tokenizer->decode(ids, true); };
  if (!raw && !loaded.chat_template_status.ok()) {
    return Status(loaded.chat_template_status.code(),
                  loaded.path + ": chat template: " + loaded.chat_template_status.message());
  }
  if (raw || loaded.chat_template == nullptr) {
    codec.encode = [tokenizer](const std::string& prompt) -> Result<std::vector<int32_t>> {
      return tokenizer->encode(prompt, true, true);
    };
    codec.self_header = tokenizer->encode("", true, true);
    if (codec.self_header.empty() && tokenizer->bos_id() >= 0) codec.self_header = {tokenizer->bos_id()};
    codec.self_writes_prompt = false;
    return codec;
  }
  const ChatTemplate* chat_template = loaded.chat_template.get();
  codec.encode = [tokenizer, chat_template](const std::string& prompt) -> Result<std::vector<int32_t>> {
    const ChatMessage message = {"user", prompt};
    DSPARK_ASSIGN_OR_RETURN(const std::string text,
                            render_chat(*chat_template, *tokenizer, {&message, 1}, true));
    return encode_rendered(*tokenizer, text);
  };
  DSPARK_ASSIGN_OR_RETURN(const std::string header, render_user_header(*chat_template, *tokenizer));
  codec.self_header = encode_rendered(*tokenizer, header);
  return codec;
}

Result<RegenerateCounts> regenerate(Engine& engine, const PromptCodec& codec, std::span<const Job> jobs,
                                    const RegenerateOptions& options, int64_t n_before,
                                    const std::function<Status(CorpusRecord&&)>& sink,
                                    const std::function<void(const RegenerateCounts&)>& on_step,
                                    const std::atomic<bool>* cancel, const FeatureSink* features) {
  DSPARK_RETURN_IF_ERROR(options.validate());
  for (const Job& job : jobs) {
    const bool writes_prompt = job.prompt == nullptr || (!job.beginning.empty() && codec.self_writes_prompt);
    if (writes_prompt && codec.self_header.empty()) {
      return unsupported("self-prompting: this model has no token that begins a text");
    }
  }
  if (options.max_answer_tokens >= 0 && n_before >= options.max_answer_tokens) {
    RegenerateCounts counts;
    counts.finished = true;
    return counts;
  }
  return Regeneration(engine, codec, options, n_before, sink, features).run(jobs, on_step, cancel);
}

Result<std::vector<Job>> jobs_left(std::vector<Job> jobs,
                                   const std::map<std::string, ExistingRecord>& records) {
  std::vector<Job> left;
  for (Job& job : jobs) {
    const auto record = records.find(job.id);
    if (record == records.end()) {
      left.push_back(std::move(job));
    } else if (record->second.seed != job.seed || record->second.temperature != job.temperature) {
      return invalid_argument(
          fmt::format("record '{}' was made with seed {} at temperature {}, these settings give seed {} at "
                      "temperature {}",
                      job.id, record->second.seed, record->second.temperature, job.seed, job.temperature));
    }
  }
  return left;
}

}  // namespace dspark
