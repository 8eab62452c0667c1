#pragma once
// Drafters by name, as the command line spells them.

#include <memory>
#include <string_view>

#include "base/status.h"
#include "draft/drafter.h"

namespace dspark {

/// "none" (or ""): no drafter, a null pointer. "ngram": prompt lookup with its default lengths; "ngram:MAX"
/// and "ngram:MIN-MAX" choose the suffix lengths tried. errors: invalid_argument with the names that exist.
Result<std::unique_ptr<Drafter>> make_drafter(std::string_view spec);

}  // namespace dspark
