#pragma once
// The whole command line as a function, so that tests can call it.

namespace dspark::cli {

/// Parses the arguments, runs the chosen subcommand. returns: the exit status of the process.
int run_command_line(int argc, const char* const* argv);

}  // namespace dspark::cli
