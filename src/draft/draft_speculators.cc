// speculators folders: the draft layers' config nested in transformer_layer_config.

#include "draft/draft_readers.h"

namespace dspark {

Result<DraftDescription> read_speculators_draft(const Checkpoint& file) {
  return unsupported(file.path() + ": speculators folders");
}

}  // namespace dspark
