#pragma once
// Errors on the command line: one line on stderr and an exit status.

#include <string_view>

#include "base/status.h"

namespace dspark::cli {

inline constexpr int kExitFailure = 1;        // the work failed: bad file, out of memory, ...
inline constexpr int kExitUsage = 2;          // the command line itself is wrong
inline constexpr int kExitInterrupted = 130;  // what a shell reports for a program that Ctrl-C ended

/// Writes "dspark: error: <message>" to stderr, line breaks replaced by spaces. returns: kExitFailure, or
/// kExitInterrupted for a cancellation.
int report_failure(const Status& error);
/// The same for a wrong command line. returns: kExitUsage.
int report_usage(std::string_view message);
/// Writes "dspark: warning: <message>" to stderr.
void report_warning(std::string_view message);

}  // namespace dspark::cli
