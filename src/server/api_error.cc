#include "server/api_error.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace dspark {
namespace {

nlohmann::ordered_json or_null(const std::string& text) {
  return text.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(text);
}

int http_of(StatusCode code) {
  switch (code) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kCorruptData:
      return 400;
    case StatusCode::kNotFound:
      return 404;
    case StatusCode::kUnsupported:
      return 501;
    case StatusCode::kResourceExhausted:
      return 429;
    case StatusCode::kCancelled:
      return 499;
    default:
      return 500;
  }
}

const char* type_of(int http) {
  if (http == 401) return "authentication_error";
  if (http == 403) return "permission_error";
  if (http == 404) return "not_found_error";
  if (http == 429) return "rate_limit_error";
  if (http == 501) return "not_supported_error";
  if (http == 503) return "service_unavailable_error";
  return http < 500 ? "invalid_request_error" : "server_error";
}

// "max_tokens: want ..." -> "max_tokens"; names of fields only, no sentences.
std::string leading_field(const std::string& message) {
  const size_t colon = message.find(": ");
  if (colon == std::string::npos) return {};
  const std::string name = message.substr(0, colon);
  const bool is_name =
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.[]") == std::string::npos;
  return is_name ? name : std::string();
}

}  // namespace

std::string ApiError::to_json() const {
  nlohmann::ordered_json error;
  error["message"] = message;
  error["type"] = type;
  error["param"] = or_null(param);
  error["code"] = or_null(code);
  // "type" beside it is what Anthropic's clients know an error by; OpenAI's look into "error" only.
  const nlohmann::ordered_json body = {{"type", "error"}, {"error", std::move(error)}};
  // Messages may quote what a client sent.
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

ApiError bad_field(std::string param, std::string message) {
  ApiError error;
  error.http = 400;
  error.type = "invalid_request_error";
  error.message = param.empty() ? std::move(message) : param + ": " + message;
  error.param = std::move(param);
  return error;
}

ApiError api_error(int http, std::string type, std::string message, std::string code) {
  ApiError error;
  error.http = http;
  error.type = type.empty() ? type_of(http) : std::move(type);
  error.message = std::move(message);
  error.code = std::move(code);
  return error;
}

ApiError from_status(const Status& status) {
  ApiError error = api_error(http_of(status.code()), {}, status.message());
  error.param = leading_field(status.message());
  if (error.http == 429) error.retry_after = 1;
  return error;
}

const char* http_reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return status < 500 ? "Bad Request" : "Internal Server Error";
  }
}

}  // namespace dspark
