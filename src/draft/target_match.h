#pragma once
// Whether a drafter whose sizes fit was made for another model all the same. Such a drafter runs, and next to
// nothing of what it drafts is accepted.

#include <string_view>

#include "base/status.h"
#include "formats/checkpoint.h"

namespace dspark {

/// Compares the texts of the tokens (`tokenizer.ggml.tokens`) id by id, as far as both lists go; files
/// without them are not compared. Ordinary tokens only (`tokenizer.ggml.token_type`, 1): how padding, control
/// and byte tokens are written differs between converters. errors: invalid_argument naming both files, the
/// first id that differs and its texts.
Status check_same_tokens(const Checkpoint& draft, const Checkpoint& target);

/// Whether two names of models, as files have them ("Qwen2.5 Coder 0.5B Instruct AWQ"), say that these are
/// different models. Careful: names of one model differ in case, in words for the way it is packed, and in
/// what a converter makes of a folder. Different are names that both tell a size and share no other telling
/// word, or of which one alone has a word for a purpose ("coder").
bool names_another_model(std::string_view made_for, std::string_view target);

}  // namespace dspark
