#include "train/run_log.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "formats/atomic_file.h"

namespace dspark {

Result<RunLog> RunLog::open(const std::string& path, const std::string& header, int64_t last_step) {
  RunLog log;
  log.path_ = path;
  std::string kept = header + "\n";
  std::ifstream in(path);
  std::string line;
  bool first = true;
  while (last_step > 0 && std::getline(in, line)) {
    if (in.eof()) break;  // no line end: cut while it was written
    if (!first && std::strtoll(line.c_str(), nullptr, 10) <= last_step) kept += line + "\n";
    first = false;
  }
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(kept.data()), kept.size()}));
  DSPARK_RETURN_IF_ERROR(file.commit());
  return log;
}

Status RunLog::append(const std::string& row) {
  std::ofstream out(path_, std::ios::app);
  out << row << '\n';
  out.flush();
  if (!out) return {StatusCode::kResourceExhausted, path_ + ": cannot be written"};
  return ok_status();
}

std::string log_header(int32_t block_size) {
  std::string header = "step,elapsed_s,anchors,epoch,learning_rate,loss,ce,soft_ce,l1,confidence,tau_prob";
  for (int32_t slot = 1; slot <= block_size; ++slot) header += fmt::format(",accept_{}", slot);
  return header + ",confidence_abs_error,confidence_bias,gradient_norm";
}

std::string log_row(const TrainRecord& record) {
  std::string row =
      fmt::format("{},{:.2f},{},{:.4f},{:.6g},{:.9g},{:.9g},{:.9g},{:.9g},{:.9g},{:.6g}", record.step,
                  record.elapsed_s, record.anchors, record.epoch, record.learning_rate, record.loss,
                  record.ce, record.soft_ce, record.l1, record.confidence, record.tau);
  for (const double rate : record.accept_rate) row += fmt::format(",{:.4f}", rate);
  return row + fmt::format(",{:.4f},{:.4f},{:.5g}", record.confidence_abs_error, record.confidence_bias,
                           record.gradient_norm);
}

}  // namespace dspark
