// GGUF drafters of llama.cpp and ik_llama.cpp.

#include "draft/draft_readers.h"

namespace dspark {

Result<DraftDescription> read_gguf_draft(const Checkpoint& file) {
  return unsupported(file.path() + ": GGUF drafters");
}

}  // namespace dspark
