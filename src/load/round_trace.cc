#include "load/round_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/atomic_file.h"
#include "formats/json_reader.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxLineBytes = size_t{64} << 20;
constexpr int64_t kMostTokens = 1 << 24;  // of a prompt or an answer
constexpr float kScale = 1000.0f;

/// One member of an object or list of a trace as a whole number.
Status read_number(const Json& node, const std::string& where, int64_t least, int64_t most, int64_t& out) {
  if (node.is_number_integer() && (!node.is_number_unsigned() || node.get<uint64_t>() <= INT64_MAX)) {
    out = node.get<int64_t>();
    if (out >= least && out <= most) return ok_status();
  }
  return corrupt_data(fmt::format("{}: want a whole number from {} to {}, found {}", where, least, most,
                                  node.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 40)));
}

const Json& member(const Json& object, const char* name) {
  static const Json kMissing;
  const auto at = object.find(name);
  return at == object.end() ? kMissing : *at;
}

Status read_head(const Json& line, const std::string& where, RoundTrace& trace) {
  int64_t version = 0, max_block = 0;
  DSPARK_RETURN_IF_ERROR(read_number(member(line, "dspark_trace"), where + ": dspark_trace", 1, 1, version));
  DSPARK_RETURN_IF_ERROR(
      read_number(member(line, "max_block"), where + ": max_block", 1, kMaxDraftTokens, max_block));
  trace.max_block = static_cast<int32_t>(max_block);
  const Json& confidence = member(line, "has_confidence");
  if (!confidence.is_boolean()) return corrupt_data(where + ": has_confidence: want true or false");
  trace.has_confidence = confidence.get<bool>();
  for (const auto& [name, text] : {std::pair{"model", &trace.model}, {"drafter", &trace.drafter}}) {
    const Json& value = member(line, name);
    if (!value.is_string()) return corrupt_data(where + ": " + name + ": want a string");
    *text = value.get<std::string>();
  }
  return ok_status();
}

/// [index, accepted, drafts, confidences...]
Status read_round(const Json& round, const std::string& where, int64_t least_index, RoundTrace& trace,
                  TraceAnswer& answer, int64_t& index) {
  if (!round.is_array() || round.size() < 3) {
    return corrupt_data(where + ": want a list of index, accepted, drafts and confidences");
  }
  int64_t accepted = 0, n_drafts = 0;
  DSPARK_RETURN_IF_ERROR(
      read_number(round[0], where + ": index", least_index, int64_t{answer.output_tokens} - 1, index));
  const int64_t room = int64_t{answer.output_tokens} - 1 - index;
  DSPARK_RETURN_IF_ERROR(
      read_number(round[2], where + ": drafts", 0, std::min<int64_t>(room, trace.max_block), n_drafts));
  DSPARK_RETURN_IF_ERROR(read_number(round[1], where + ": accepted", 0, n_drafts, accepted));
  const size_t n_confidences = trace.has_confidence ? static_cast<size_t>(n_drafts) : 0;
  if (round.size() != 3 + n_confidences) {
    return corrupt_data(
        fmt::format("{}: want {} confidences, found {}", where, n_confidences, round.size() - 3));
  }
  TraceAnchor anchor;
  anchor.first = trace.confidence.size();
  anchor.n_drafts = static_cast<int16_t>(n_drafts);
  anchor.accepted = static_cast<int16_t>(accepted);
  for (size_t k = 3; k < round.size(); ++k) {
    int64_t thousandths = 0;
    DSPARK_RETURN_IF_ERROR(read_number(round[k], where + ": confidence", 0, int64_t{1000}, thousandths));
    trace.confidence.push_back(static_cast<float>(thousandths) / kScale);
  }
  answer.anchors[static_cast<size_t>(index)] = anchor;
  return ok_status();
}

Status read_answer(const Json& line, const std::string& where, RoundTrace& trace) {
  int64_t prompt = 0, output = 0;
  DSPARK_RETURN_IF_ERROR(read_number(member(line, "prompt"), where + ": prompt", 1, kMostTokens, prompt));
  const Json& rounds = member(line, "rounds");
  if (!rounds.is_array()) return corrupt_data(where + ": rounds: want a list");
  // An answer has a round for nearly every token: its length is checked against what the line really holds.
  const auto n_rounds = static_cast<int64_t>(rounds.size());
  DSPARK_RETURN_IF_ERROR(read_number(member(line, "output"), where + ": output", 1,
                                     std::min(kMostTokens, 64 + n_rounds * (kMaxDraftTokens + 1)), output));
  TraceAnswer answer;
  answer.prompt_tokens = static_cast<int32_t>(prompt);
  answer.output_tokens = static_cast<int32_t>(output);
  answer.anchors.resize(static_cast<size_t>(output));
  int64_t index = -1;
  for (size_t r = 0; r < rounds.size(); ++r) {
    DSPARK_RETURN_IF_ERROR(
        read_round(rounds[r], fmt::format("{}: rounds[{}]", where, r), index + 1, trace, answer, index));
  }
  trace.answers.push_back(std::move(answer));
  return ok_status();
}

std::string answer_line(const RoundTrace& trace, const TraceAnswer& answer) {
  std::string line =
      fmt::format("{{\"prompt\":{},\"output\":{},\"rounds\":[", answer.prompt_tokens, answer.output_tokens);
  bool first = true;
  for (size_t i = 0; i < answer.anchors.size(); ++i) {
    const TraceAnchor& anchor = answer.anchors[i];
    if (anchor.n_drafts == 0) continue;
    line += fmt::format("{}[{},{},{}", first ? "" : ",", i, anchor.accepted, anchor.n_drafts);
    for (float c : trace.confidence_of(anchor)) line += fmt::format(",{}", std::lround(c * kScale));
    line += "]";
    first = false;
  }
  return line + "]}\n";
}

}  // namespace

Status write_round_trace(const std::string& path, const RoundTrace& trace) {
  const nlohmann::ordered_json head = {{"dspark_trace", 1},
                                       {"model", trace.model},
                                       {"drafter", trace.drafter},
                                       {"max_block", trace.max_block},
                                       {"has_confidence", trace.has_confidence}};
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  const auto write = [&file](const std::string& text) {
    return file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  };
  DSPARK_RETURN_IF_ERROR(write(head.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"));
  for (const TraceAnswer& answer : trace.answers) DSPARK_RETURN_IF_ERROR(write(answer_line(trace, answer)));
  return file.commit();
}

Result<RoundTrace> read_round_trace(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path + ": no such file");
  RoundTrace trace;
  std::string text;
  for (int64_t n = 1; std::getline(file, text); ++n) {
    const std::string where = fmt::format("{}:{}", path, n);
    if (text.size() > kMaxLineBytes) return corrupt_data(where + ": the line is too long");
    if (text.empty()) continue;
    DSPARK_ASSIGN_OR_RETURN(const Json line, parse_json(text, where));
    if (!line.is_object()) return corrupt_data(where + ": want a JSON object");
    const bool is_head = trace.max_block == 0;
    DSPARK_RETURN_IF_ERROR(is_head ? read_head(line, where, trace) : read_answer(line, where, trace));
  }
  if (file.bad()) return corrupt_data(path + ": cannot be read");
  if (trace.max_block == 0) return corrupt_data(path + ": is empty");
  if (trace.answers.empty()) return corrupt_data(path + ": has no answers");
  return trace;
}

}  // namespace dspark
