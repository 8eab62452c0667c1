#pragma once
// Private to the room: tokenizer.json (byte-level BPE) -> tokenizer.ggml.* keys.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "formats/gguf_writer.h"

namespace dspark {

/// Sets the tokenizer keys from tokenizer.json, tokenizer_config.json and chat_template.jinja in the
/// checkpoint's folder. A missing tokenizer, or one that is not byte-level BPE with a known pre-tokeniser,
/// gives tokenizer.ggml.model = "no_vocab" and a note. errors: corrupt_data (broken JSON, ids outside the
/// embedding).
Status set_hf_tokenizer(const Checkpoint& checkpoint, int64_t vocab_size, GgufWriter& writer,
                        std::vector<std::string>& notes);

}  // namespace dspark
