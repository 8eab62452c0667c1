#pragma once
// Private to the room: the CSV files of a run.

#include <cstdint>
#include <string>

#include "base/status.h"
#include "train/trainer.h"

namespace dspark {

/// A CSV whose first column is the step. Rows are appended and flushed one by one.
class RunLog {
 public:
  /// Continues the file behind the last row whose step is at most `last_step`; later rows came from a part of
  /// the run that was lost and are removed. A new file starts with `header`.
  static Result<RunLog> open(const std::string& path, const std::string& header, int64_t last_step);
  Status append(const std::string& row);

 private:
  std::string path_;
};

/// Columns of log.csv for a block of `block_size` slots, and one row of it.
std::string log_header(int32_t block_size);
std::string log_row(const TrainRecord& record);

}  // namespace dspark
