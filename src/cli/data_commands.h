#pragma once
// The commands below `dspark data`.

namespace CLI {
class App;
}

namespace dspark::cli {

/// As in cli/commands.h; `data` is the subcommand that gets them.
void register_data_generate(CLI::App& data, int& exit_code);
void register_data_filter(CLI::App& data, int& exit_code);
void register_data_cache(CLI::App& data, int& exit_code);
void register_data_vocab(CLI::App& data, int& exit_code);

}  // namespace dspark::cli
