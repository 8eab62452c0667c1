// dspark data: what drafters are trained on.

#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/data_commands.h"

namespace dspark::cli {

void register_data(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("data", "make training data for drafters: generate, filter, cache");
  command->require_subcommand(1);
  register_data_generate(*command, exit_code);
  register_data_filter(*command, exit_code);
  register_data_cache(*command, exit_code);
  register_data_vocab(*command, exit_code);
}

}  // namespace dspark::cli
