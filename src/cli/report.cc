#include "cli/report.h"

#include <cstdio>
#include <string>

namespace dspark::cli {
namespace {

// One error is one line, so that scripts can cut it out of a log.
void print_error_line(std::string_view message) {
  std::string line = "dspark: error: ";
  for (char c : message) line += (c == '\n' || c == '\r') ? ' ' : c;
  while (line.back() == ' ') line.pop_back();
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

int report_failure(const Status& error) {
  print_error_line(error.message());
  return error.code() == StatusCode::kCancelled ? kExitInterrupted : kExitFailure;
}

int report_usage(std::string_view message) {
  print_error_line(message);
  return kExitUsage;
}

}  // namespace dspark::cli
