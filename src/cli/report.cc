#include "cli/report.h"

#include <cstdio>
#include <string>

namespace dspark::cli {
namespace {

// One message is one line, so that scripts can cut it out of a log.
void print_line(std::string line, std::string_view message) {
  for (char c : message) line += (c == '\n' || c == '\r') ? ' ' : c;
  while (line.back() == ' ') line.pop_back();
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

int report_failure(const Status& error) {
  print_line("dspark: error: ", error.message());
  return error.code() == StatusCode::kCancelled ? kExitInterrupted : kExitFailure;
}

int report_usage(std::string_view message) {
  print_line("dspark: error: ", message);
  return kExitUsage;
}

void report_warning(std::string_view message) {
  print_line("dspark: warning: ", message);
}

}  // namespace dspark::cli
