#pragma once
// Fields of OpenAI's endpoints that would change the answer, and that this server does not know: passing over
// them would answer another question than was asked.

#include <nlohmann/json_fwd.hpp>

#include "server/api_error.h"
#include "server/completion_request.h"

namespace dspark {

/// kind: which interface the body came by. Values that ask for nothing (null, no suffix, one answer of one)
/// are let through. errors: 400 naming the field. requires: `body` is an object.
ApiError refuse_fields(const nlohmann::ordered_json& body, ApiKind kind);

}  // namespace dspark
