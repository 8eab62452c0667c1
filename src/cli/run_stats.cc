#include "cli/run_stats.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/spec_report.h"

namespace dspark::cli {
namespace {

using Json = nlohmann::ordered_json;

double per_second(double count, double seconds) {
  return seconds > 0 ? count / seconds : 0.0;
}

// The first token belongs to the prompt's time.
double decode_speed(const GenerateStats& stats) {
  return per_second(stats.output_tokens - 1, stats.decode_s);
}

// Of the tokens that were computed.
double prompt_speed(const GenerateStats& stats) {
  return per_second(stats.prompt_tokens - stats.cached_tokens, stats.prompt_s);
}

std::string speculation_text(const Session& session, const GenerateStats& stats) {
  if (session.policy().draft_tokens() == 0) return "speculation off";
  const SpeculationStats& spec = stats.speculation;
  return fmt::format("{} drafts {} ({} verified, {} accepted), {:.2f} tokens per step",
                     drafter_name(session.engine()), spec.drafted, spec.verified, spec.accepted,
                     spec.accept_len());
}

Json timings_json(const Session& session, const GenerateStats& stats) {
  return {{"load_s", session.loaded().load_s},
          {"prompt_tokens", stats.prompt_tokens},
          {"prompt_s", stats.prompt_s},
          {"prompt_tokens_cached", stats.cached_tokens},
          {"prompt_tokens_per_s", prompt_speed(stats)},
          {"generated_tokens", stats.output_tokens},
          {"decode_s", stats.decode_s},
          {"generated_tokens_per_s", stats.output_tokens > 1 ? decode_speed(stats) : 0.0},
          {"steps", stats.steps},
          {"threads", session.loaded().pool->n_threads()}};
}

// Where the time of all steps so far went; what is left of step_s is the loop itself.
Json engine_json(const EngineStats& stats) {
  return {{"steps", stats.steps},
          {"draft_s", stats.draft_s},
          {"forward_s", stats.forward_s},
          {"commit_s", stats.commit_s},
          {"step_s", stats.step_s}};
}

Json speculation_json(const Session& session, const SpeculationStats& spec) {
  Json object = {{"drafter", drafter_name(session.engine())},
                 {"policy", session.policy().to_string()},
                 {"accept_rule", accept_rule_name(session.engine().options().accept_rule)}};
  object.update(speculation_numbers(spec));
  return object;
}

}  // namespace

std::string stats_line(const Session& session, const GenerateResult& result) {
  const GenerateStats& stats = result.stats;
  const std::string cached =
      stats.cached_tokens > 0 ? fmt::format(" ({} from the cache)", stats.cached_tokens) : "";
  std::string line = fmt::format("[prompt {} tokens{}, {:.1f} tok/s | generated {} tokens",
                                 stats.prompt_tokens, cached, prompt_speed(stats), stats.output_tokens);
  if (stats.output_tokens > 1) line += fmt::format(", {:.1f} tok/s", decode_speed(stats));
  line += " | " + speculation_text(session, stats);
  if (session.flags().temperature >= kGreedyTemperature) line += fmt::format(" | seed {}", session.seed());
  line += fmt::format(" | {}]", finish_reason_name(result.finish_reason));
  return line;
}

std::string result_json(const Session& session, const GenerateResult& result) {
  const Json object = {{"text", result.text},
                       {"tokens", result.tokens},
                       {"finish_reason", finish_reason_name(result.finish_reason)},
                       {"seed", session.seed()},
                       {"timings", timings_json(session, result.stats)},
                       {"speculation", speculation_json(session, result.stats.speculation)},
                       {"engine", engine_json(session.engine().stats())}};
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace dspark::cli
