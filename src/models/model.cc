#include "models/model.h"

#include <utility>

#include "models/decoder.h"
#include "models/deepseek_v4.h"

namespace dspark {

void ForwardBatch::clear() {
  tokens.clear();
  positions.clear();
  runs.clear();
  logit_rows.clear();
  capture_rows.clear();
}

void ForwardBatch::reserve(int64_t most_rows, int64_t most_runs) {
  for (std::vector<int32_t>* list : {&tokens, &positions, &logit_rows, &capture_rows}) {
    list->reserve(static_cast<size_t>(most_rows));
  }
  runs.reserve(static_cast<size_t>(most_runs));
}

Result<std::unique_ptr<TargetModel>> TargetModel::load(std::shared_ptr<const Checkpoint> checkpoint,
                                                       ThreadPool& pool, const ModelOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(ModelConfig config, read_model_config(*checkpoint));
  if (config.v4.n_streams > 0) {
    return DeepseekV4::load(std::move(checkpoint), std::move(config), pool, options);
  }
  return Decoder::load(std::move(checkpoint), std::move(config), pool, options);
}

Result<std::unique_ptr<TargetModel>> TargetModel::open(const std::string& path, ThreadPool& pool,
                                                       const ModelOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(path));
  return load(std::make_shared<const Checkpoint>(std::move(checkpoint)), pool, options);
}

}  // namespace dspark
