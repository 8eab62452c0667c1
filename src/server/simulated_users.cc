#include "server/simulated_users.h"

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "server/model_host.h"

namespace dspark {
namespace {

// Answers of different kinds: drafts fare differently on prose, numbers and code.
constexpr const char* kQuestions[] = {
    "Explain step by step how to compute 17 times 24.",
    "Write a Python function that removes duplicates from a list and keeps the order.",
    "Describe a walk through an old harbour town in the early morning.",
    "List ten ideas for a quiet weekend at home.",
    "Write a short story about a lighthouse keeper who learns to cook.",
    "Explain to a beginner what a hash table is, with an example.",
};
constexpr int32_t kAnswerTokens = 160;

}  // namespace

struct SimulatedUsers::State : std::enable_shared_from_this<SimulatedUsers::State> {
  explicit State(ModelHost& the_model) : model(the_model) {}

  void ask();

  ModelHost& model;
  std::atomic<int> wanted{0};
  std::atomic<int> running{0};
  std::atomic<uint64_t> n_asked{0};
};

// A user whose question cannot be asked (queue full, context too short) leaves.
void SimulatedUsers::State::ask() {
  const uint64_t number = n_asked++;
  const std::string question = kQuestions[number % std::size(kQuestions)];
  CompletionRequest request;
  request.kind = model.loaded().chat_template != nullptr ? ApiKind::kChat : ApiKind::kCompletion;
  const nlohmann::ordered_json message = {{"role", "user"}, {"content", question}};
  request.messages = std::make_shared<const nlohmann::ordered_json>(nlohmann::ordered_json::array({message}));
  if (request.kind == ApiKind::kCompletion) request.prompts.emplace_back(question);
  std::vector<std::vector<int32_t>> prompts;
  ReasoningStart reasoning = ReasoningStart::kNone;
  if (!model.encode_prompts(request, prompts, &reasoning).ok()) {
    --running;
    return;
  }
  request.generate.prompt = std::move(prompts.front());
  request.generate.max_tokens = kAnswerTokens;
  request.generate.sampling.seed = number;
  request.generate.queue.priority = -1;  // behind everybody who asked for nothing special
  request.generate.queue.client = "simulated";
  const auto on_update = [self = shared_from_this()](const StreamUpdate& update) {
    if (update.finish_reason == FinishReason::kNone) return;
    if (update.finish_reason != FinishReason::kCancelled && self->running <= self->wanted) return self->ask();
    --self->running;
  };
  if (!model.submit(std::move(request.generate), on_update).ok()) --running;
}

SimulatedUsers::SimulatedUsers(ModelHost& model) : state_(std::make_shared<State>(model)) {}

SimulatedUsers::~SimulatedUsers() {
  state_->wanted = 0;
}

void SimulatedUsers::set(int n) {
  state_->wanted = std::clamp(n, 0, kMaxSimulatedUsers);
  // A fixed number of tries: a model that refuses the questions would keep this going for ever.
  const int missing = state_->wanted - state_->running;
  for (int i = 0; i < missing; ++i) {
    ++state_->running;
    state_->ask();
  }
}

int SimulatedUsers::n() const {
  return state_->wanted;
}

}  // namespace dspark
