#pragma once
// JSON in and out of the template interpreter.

#include <nlohmann/json_fwd.hpp>

#include "text/jinja_value.h"

namespace dspark::jinja {

/// The value of a JSON document; text that is not UTF-8 is repaired. Throws JinjaError (kLimit) when it is
/// nested too deeply or too large.
Value value_of_json(Heap& heap, const nlohmann::ordered_json& json);

}  // namespace dspark::jinja
