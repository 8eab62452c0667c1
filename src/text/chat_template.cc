#include "text/chat_template.h"

#include <chrono>
#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <vector>

#include "text/jinja_error.h"
#include "text/jinja_eval.h"
#include "text/jinja_json.h"
#include "text/jinja_lexer.h"
#include "text/jinja_parser.h"
#include "text/utf8.h"

namespace dspark {
namespace {

constexpr size_t kMaxSourceBytes = size_t{512} << 10;  // the largest published templates have 20 KB

std::tm local_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  localtime_r(&now, &parts);
  return parts;
}

Status status_of(const jinja::JinjaError& error) {
  using jinja::ErrorKind;
  if (error.kind == ErrorKind::kRaised) return invalid_argument(error.message);
  const std::string where = "chat template, line " + std::to_string(error.line) + ": ";
  switch (error.kind) {
    case ErrorKind::kLimit:
      return resource_exhausted(where + error.message);
    case ErrorKind::kUnsupported:
      return unsupported(where + error.message);
    case ErrorKind::kSyntax:
      return corrupt_data(where + error.message);
    default:
      return invalid_argument(where + jinja::error_kind_name(error.kind) + ": " + error.message);
  }
}

// Runs `body`, a function that gives a Result, and turns what it throws into an error.
template <typename F>
auto guarded(F&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const jinja::JinjaError& error) {
    return status_of(error);
  } catch (const std::bad_alloc&) {
    return out_of_memory("chat template: an allocation failed");
  } catch (const std::exception& error) {
    return internal_error(std::string("chat template: ") + error.what());
  }
}

}  // namespace

struct ChatTemplate::Parsed {
  std::string source;
  jinja::Block block;
  std::set<std::string, std::less<>> names;  // every identifier of the template
};

ChatTemplate::ChatTemplate(std::shared_ptr<const Parsed> parsed)
    : parsed_(std::move(parsed)), clock_(local_now) {}

Result<ChatTemplate> ChatTemplate::parse(std::string source) {
  return guarded([&]() -> Result<ChatTemplate> {
    if (source.size() > kMaxSourceBytes) {
      return resource_exhausted("chat template: " + std::to_string(source.size()) +
                                " bytes, expected at most " + std::to_string(kMaxSourceBytes));
    }
    auto parsed = std::make_shared<Parsed>();
    parsed->source = is_valid_utf8(source) ? std::move(source) : to_valid_utf8(source);
    std::vector<jinja::Token> tokens = jinja::tokenize(parsed->source);
    for (const jinja::Token& token : tokens) {
      if (token.kind == jinja::Token::Kind::kName) parsed->names.insert(token.text);
    }
    parsed->block = jinja::Parser(std::move(tokens)).parse();
    return ChatTemplate(std::move(parsed));
  });
}

Result<std::string> ChatTemplate::render_variables(const nlohmann::ordered_json& variables) const {
  return guarded([&]() -> Result<std::string> {
    if (!variables.is_object()) return invalid_argument("chat template: the variables must be a JSON object");
    jinja::Interp interp(jinja::Limits{}, clock_);
    for (const auto& [name, value] : variables.items())
      interp.define(name, jinja::value_of_json(interp.heap(), value));
    return interp.run(parsed_->block);
  });
}

Result<std::string> ChatTemplate::render(const ChatInputs& inputs) const {
  return guarded([&]() -> Result<std::string> {
    if (inputs.messages == nullptr || !inputs.messages->is_array()) {
      return invalid_argument("chat template: messages must be a JSON array");
    }
    if (inputs.extra != nullptr && !inputs.extra->is_object()) {
      return invalid_argument("chat template: extra variables must be a JSON object");
    }
    using jinja::Value;
    jinja::Interp interp(jinja::Limits{}, clock_);
    const auto json = [&](const nlohmann::ordered_json* j) {
      return j == nullptr ? Value::none() : jinja::value_of_json(interp.heap(), *j);
    };
    interp.define("messages", json(inputs.messages));
    interp.define("tools", json(inputs.tools));
    interp.define("documents", Value::none());
    interp.define("add_generation_prompt", Value::boolean(inputs.add_generation_prompt));
    if (inputs.bos_token) interp.define("bos_token", interp.string(to_valid_utf8(*inputs.bos_token)));
    if (inputs.eos_token) interp.define("eos_token", interp.string(to_valid_utf8(*inputs.eos_token)));
    if (inputs.extra != nullptr) {
      for (const auto& [name, value] : inputs.extra->items()) interp.define(name, json(&value));
    }
    return interp.run(parsed_->block);
  });
}

bool ChatTemplate::uses_variable(std::string_view name) const {
  return parsed_->names.find(name) != parsed_->names.end();
}

const std::string& ChatTemplate::source() const {
  return parsed_->source;
}

}  // namespace dspark
