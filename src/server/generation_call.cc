#include "server/generation_call.h"

#include <algorithm>
#include <cstdio>
#include <span>
#include <utility>

#include "text/tokenizer.h"

namespace dspark {
namespace {

int64_t seconds_since_1970() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

double seconds(std::chrono::steady_clock::duration span) {
  return std::chrono::duration<double>(span).count();
}

// In the words of OpenAI's API: what ended early for other reasons than the text's is "length".
const char* api_reason(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

// The field that the prompt comes from.
const char* prompt_field(ApiKind kind) {
  if (kind == ApiKind::kCompletion) return "prompt";
  return kind == ApiKind::kResponses ? "input" : "messages";
}

const char* id_prefix(ApiKind kind) {
  switch (kind) {
    case ApiKind::kCompletion:
      return "cmpl-";
    case ApiKind::kResponses:
      return "resp_";
    case ApiKind::kMessages:
      return "msg_";
    default:
      return "chatcmpl-";
  }
}

}  // namespace

GenerationCall::GenerationCall(ModelHost& host, CompletionRequest request, std::shared_ptr<Exchange> exchange,
                               OutputParser::Options parsing)
    : host_(host),
      request_(std::move(request)),
      exchange_(std::move(exchange)),
      arrived_(Clock::now()),
      parsing_(std::move(parsing)) {
  head_.id = id_prefix(request_.kind) + exchange_->request_id;
  head_.created = seconds_since_1970();
  head_.model = host_.name();
  head_.kind = request_.kind;
  head_.trace = request_.trace;
  head_.logprobs = request_.logprobs;
  head_.include_usage = request_.include_usage;
  head_.parallel_tool_calls = request_.parallel_tool_calls;
  head_.custom_tools = request_.custom_tools;
  if (request_.tool_choice != "none") head_.tools = request_.tools;
}

void GenerationCall::start(const std::vector<std::vector<int32_t>>& prompts, const std::string& client) {
  ApiError error;
  // Before the first answer may fill it. Weak: the exchange is part of this call.
  exchange_->on_drained([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->release_all();
  });
  {
    const std::lock_guard lock(mutex_);
    choices_.resize(prompts.size() * static_cast<size_t>(request_.n));
    n_left_ = choices_.size();
    error = submit_all(prompts, client);
    failed_ = !error.ok();
    if (failed_) cancel_all();
  }
  if (!error.ok()) return exchange_->fail(error);
  exchange_->on_abort([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->cancel({});
  });
}

ApiError GenerationCall::submit_all(const std::vector<std::vector<int32_t>>& prompts,
                                    const std::string& client) {
  for (size_t i = 0; i < choices_.size(); ++i) {
    const std::vector<int32_t>& prompt = prompts[i / static_cast<size_t>(request_.n)];
    if (static_cast<int64_t>(prompt.size()) >= host_.context_length()) {
      ApiError error = bad_field(prompt_field(request_.kind),
                                 std::to_string(prompt.size()) + " tokens do not fit the context of " +
                                     std::to_string(host_.context_length()) + " tokens");
      error.code = "context_length_exceeded";
      return error;
    }
    const auto n_in_prompt = static_cast<uint64_t>(i) % static_cast<uint64_t>(request_.n);
    GenerateRequest generate = request_.generate;
    generate.prompt = prompt;
    generate.sampling.seed += n_in_prompt;
    generate.queue.client = client;
    if (request_.trace && generate.n_logprobs < 0) generate.n_logprobs = 0;
    generate.draft_probabilities = request_.trace;
    Choice& choice = choices_[i];
    choice.first_of_prompt = n_in_prompt == 0;
    choice.whole.index = static_cast<int32_t>(i);
    if (parsing_.format.tools != ToolFormat::kNone || parsing_.format.has_reasoning) {
      choice.parser = std::make_unique<OutputParser>(parsing_);
    }
    if (request_.echo) choice.echo = host_.tokenizer().decode(prompt, true);
    const Result<RequestId> id = host_.submit(
        std::move(generate),
        [self = shared_from_this(), i](const StreamUpdate& update) { self->on_update(i, update); });
    if (!id.ok()) return error_of_submit(id.status(), request_.kind);
    choice.id = *id;
  }
  return {};
}

std::string GenerationCall::bytes_of(int32_t token) const {
  return std::string(host_.tokenizer().token_bytes(token));
}

void GenerationCall::measure(Choice& choice, const StreamUpdate& update) {
  choice.stats = *update.stats;
  if (update.tokens.empty()) return;
  const Clock::time_point now = Clock::now();
  const auto n_tokens = static_cast<int64_t>(update.tokens.size());
  if (!choice.has_token) {
    host_.metrics().first_token(seconds(now - arrived_));
    if (!std::exchange(logged_first_, true)) {
      char text[48];
      std::snprintf(text, sizeof(text), " ttft_s=%.4f", seconds(now - arrived_));
      exchange_->add_log(text);
    }
  } else {
    host_.metrics().more_tokens(seconds(now - choice.last_token), n_tokens);
  }
  choice.has_token = true;
  choice.last_token = now;
}

void GenerationCall::add_notes(Choice& choice, AnswerPiece& piece, const StreamUpdate& update) const {
  if (!request_.logprobs && !request_.trace) return;
  const bool tells_offsets = request_.logprobs && request_.kind == ApiKind::kCompletion;
  std::string text;  // of one token: tags and the like have bytes, but are no text
  const auto n_top = static_cast<size_t>(std::max(0, request_.generate.n_logprobs));
  for (size_t i = 0; i < update.tokens.size(); ++i) {
    TokenNote note;
    note.event = update.tokens[i];
    note.bytes = bytes_of(note.event.token);
    if (tells_offsets && !note.event.is_stop) {
      text.clear();
      host_.options().token_bytes(note.event.token, text);
      note.text_offset = choice.offsets.add(text);
    }
    for (size_t k = 0; k < n_top && i * n_top + k < update.top_logprobs.size(); ++k) {
      const TokenLogprob& other = update.top_logprobs[i * n_top + k];
      note.top.emplace_back(bytes_of(other.token), other.logprob);
    }
    if (note.event.draft_idx >= 0 && update.round != nullptr) {
      const auto draft = static_cast<size_t>(note.event.draft_idx);
      const RoundView& round = *update.round;
      if (draft < round.confidence.size()) note.confidence = round.confidence[draft];
      if (draft < round.probability.size()) note.draft_probability = round.probability[draft];
      if (draft < round.sources.size()) note.source = proposal_source_name(round.sources[draft]);
    }
    piece.tokens.push_back(std::move(note));
  }
}

bool GenerationCall::fail_early(const StreamUpdate& update) {
  const ApiError error = error_of_end(update.finish_reason, cancel_message_);
  if (error.ok()) return false;
  failed_ = true;
  cancel_all();
  if (stream_ == nullptr) {
    exchange_->fail(error);
  } else {
    exchange_->write(stream_->error(error));
    exchange_->end();
  }
  return true;
}

void GenerationCall::add_event(const OutputEvent& event, AnswerPiece& piece) const {
  switch (event.kind) {
    case OutputEvent::Kind::kContent:
      piece.text += event.text;
      break;
    case OutputEvent::Kind::kReasoning:
      piece.reasoning += event.text;
      break;
    case OutputEvent::Kind::kToolCall: {
      const std::string id = "call_" + exchange_->request_id + "_" + std::to_string(piece.index) + "_" +
                             std::to_string(event.call);
      piece.tool_calls.push_back({event.call, id, event.text, {}});
      break;
    }
    case OutputEvent::Kind::kToolArguments:
      if (piece.tool_calls.empty() || piece.tool_calls.back().index != event.call) {
        piece.tool_calls.push_back({event.call, {}, {}, {}});
      }
      piece.tool_calls.back().arguments += event.text;
      break;
    case OutputEvent::Kind::kToolCallEnd:
      break;
  }
}

std::vector<OutputEvent> GenerationCall::split_text(Choice& choice, const StreamUpdate& update) const {
  std::vector<OutputEvent> events;
  if (choice.parser == nullptr) {
    if (!update.text.empty()) {
      events.push_back({OutputEvent::Kind::kContent, -1, std::string(update.text), choice.text_bytes});
    }
  } else {
    choice.parser->feed(update.text, events);
    if (update.finish_reason != FinishReason::kNone) choice.parser->finish(events);
  }
  choice.text_bytes += update.text.size();
  return events;
}

void GenerationCall::count_reasoning(Choice& choice, const StreamUpdate& update,
                                     const std::vector<OutputEvent>& events) const {
  if (choice.parser == nullptr || !parsing_.format.has_reasoning) return;
  std::string bytes;
  for (const TokenEvent& token : update.tokens) {
    bytes.clear();
    if (!token.is_stop) host_.options().token_bytes(token.token, bytes);
    choice.reasoning.add_token(bytes.size());
  }
  for (const OutputEvent& event : events) choice.reasoning.add_event(event);
}

void GenerationCall::tell_end(const Choice& choice, const StreamUpdate& update, AnswerPiece& piece) const {
  piece.finish_reason = api_reason(update.finish_reason);
  if (update.finish_reason != FinishReason::kStop) return;
  const bool called = choice.parser != nullptr && choice.parser->n_calls() > 0;
  if (called) {
    piece.finish_reason = "tool_calls";
  } else {
    piece.stop_string = std::string(update.stop_string);
  }
}

// Of every answer, and once of all answers to a prompt.
void GenerationCall::count_end(size_t index, const StreamUpdate& update) {
  const GenerateStats& stats = *update.stats;
  const int32_t most_tokens = request_.generate.max_tokens > 0 ? request_.generate.max_tokens
                                                               : host_.context_length() - stats.prompt_tokens;
  host_.metrics().finished(finish_reason_name(update.finish_reason), seconds(Clock::now() - arrived_),
                           most_tokens, stats);
  const auto n = static_cast<size_t>(request_.n);
  int64_t longest = 0;
  for (const Choice& choice : std::span(choices_).subspan(index / n * n, n)) {
    if (!choice.ended) return;
    longest = std::max<int64_t>(longest, choice.stats.output_tokens);
  }
  host_.metrics().prompt_finished(request_.n, longest);
}

void GenerationCall::on_update(size_t index, const StreamUpdate& update) {
  const std::lock_guard lock(mutex_);
  Choice& choice = choices_[index];
  measure(choice, update);
  const bool ends = update.finish_reason != FinishReason::kNone;
  if (ends) {
    choice.ended = true;
    --n_left_;
    count_end(index, update);
  }
  if (failed_ || fail_early(update)) return;
  // A prompt that is still being read. A streamed answer does not begin yet: until it does a proxy may ask
  // another server, and a failure has a status of its own.
  if (!ends && update.tokens.empty()) return;
  AnswerPiece piece;
  piece.index = choice.whole.index;
  // Prompts are told once they were read.
  if (!choice.echo.empty() && (ends || !update.tokens.empty())) piece.text = std::exchange(choice.echo, {});
  const std::vector<OutputEvent> events = split_text(choice, update);
  for (const OutputEvent& event : events) add_event(event, piece);
  count_reasoning(choice, update, events);
  add_notes(choice, piece, update);
  if (request_.trace) {
    std::vector<TokenNote> tokens = std::exchange(piece.tokens, {});
    choice.trace.share(update.text, events, ends, tokens, piece.tokens);
  }
  if (ends) tell_end(choice, update, piece);
  if (request_.stream) {
    stream_piece(choice, std::move(piece));
  } else {
    join_pieces(choice.whole, std::move(piece));
  }
  if (n_left_ == 0 && !failed_) finish();
}

void GenerationCall::stream_piece(Choice& choice, AnswerPiece piece) {
  if (stream_ == nullptr) {
    const UsageCounts begun = usage();
    head_.prompt_tokens = begun.prompt_tokens;
    head_.cached_tokens = begun.cached_tokens;
    stream_ = make_answer_stream(head_);
    HttpResponse head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    exchange_->begin_stream(std::move(head));
  }
  const bool empty = piece.text.empty() && piece.reasoning.empty() && piece.tool_calls.empty() &&
                     piece.tokens.empty() && piece.finish_reason.empty();
  if (empty) return;
  piece.is_first = !std::exchange(choice.sent_first, true);
  if (exchange_->write(stream_->piece(piece))) {
    if (exchange_->full()) hold_all();
    return;
  }
  // Nobody reads.
  failed_ = true;
  cancel_all();
  exchange_->break_off();
}

UsageCounts GenerationCall::usage() const {
  UsageCounts sum;
  for (const Choice& choice : choices_) {
    sum.add(choice.stats, choice.first_of_prompt);
    sum.reasoning_tokens += choice.reasoning.count();
  }
  return sum;
}

void GenerationCall::finish() {
  const UsageCounts counts = usage();
  char text[160];
  std::snprintf(text, sizeof(text),
                " prompt_tokens=%lld output_tokens=%lld drafted=%lld verified=%lld accepted=%lld",
                static_cast<long long>(counts.prompt_tokens),
                static_cast<long long>(counts.completion_tokens), static_cast<long long>(counts.drafted),
                static_cast<long long>(counts.verified), static_cast<long long>(counts.accepted));
  exchange_->add_log(text);
  if (request_.stream) {
    exchange_->write(stream_->end(counts, request_.include_usage));
    return exchange_->end();
  }
  std::vector<AnswerPiece> answers;
  for (Choice& choice : choices_) answers.push_back(std::move(choice.whole));
  HttpResponse response;
  response.body = write_whole(head_, answers, counts);
  exchange_->respond(std::move(response));
}

void GenerationCall::cancel_all() {
  for (const Choice& choice : choices_) {
    if (!choice.ended && choice.id != 0) host_.cancel(choice.id);
  }
}

// All of them: they share the stream. What the step in hand still tells comes on top of what waits.
void GenerationCall::hold_all() {
  if (std::exchange(held_, true)) return;
  for (const Choice& choice : choices_) {
    if (!choice.ended && choice.id != 0) host_.hold(choice.id);
  }
}

// The reader took what waited. Comes behind the hold_all() of the update that made it wait, whose lock this
// waits for.
void GenerationCall::release_all() {
  const std::lock_guard lock(mutex_);
  if (!std::exchange(held_, false)) return;
  for (const Choice& choice : choices_) {
    if (!choice.ended && choice.id != 0) host_.release(choice.id);
  }
}

void GenerationCall::cancel(const std::string& message) {
  const std::lock_guard lock(mutex_);
  cancel_message_ = message;
  cancel_all();
}

RunningCall::View GenerationCall::view() const {
  const std::lock_guard lock(mutex_);
  View view;
  view.request_id = exchange_->request_id;
  view.model = host_.name();
  view.n_choices = static_cast<int64_t>(choices_.size());
  view.n_done = view.n_choices - static_cast<int64_t>(n_left_);
  view.usage = usage();
  view.age_s = seconds(Clock::now() - arrived_);
  view.streamed = request_.stream;
  return view;
}

}  // namespace dspark
