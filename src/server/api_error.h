#pragma once
// Errors as HTTP clients see them, in the JSON shape of OpenAI's API.

#include <string>

#include "base/status.h"

namespace dspark {

/// One failed request.
struct ApiError {
  int http = 500;        // status code
  std::string type;      // "invalid_request_error", "rate_limit_error", ...
  std::string message;   // one sentence
  std::string param;     // the field at fault; empty: null
  std::string code;      // "context_length_exceeded", ...; empty: null
  int retry_after = -1;  // seconds, for the header Retry-After; -1: none

  bool ok() const { return message.empty(); }
  /// {"type":"error","error":{"message":...,"type":...,"param":...,"code":...}}
  std::string to_json() const;
};

/// 400, naming the field.
ApiError bad_field(std::string param, std::string message);
/// Without a field.
ApiError api_error(int http, std::string type, std::string message, std::string code = {});
/// From a room below: the code decides the HTTP status; a message that starts with "FIELD: " names it.
ApiError from_status(const Status& status);

/// The reason phrase of a status code, e.g. "Not Found".
const char* http_reason(int status);

}  // namespace dspark
