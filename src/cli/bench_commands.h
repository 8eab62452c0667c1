#pragma once
// The subcommands of `dspark bench`.

namespace CLI {
class App;
}

namespace dspark::cli {

/// As the functions of cli/commands.h; `bench` is the command they belong to.
void register_bench_load(CLI::App& bench, int& exit_code);
void register_bench_schedule(CLI::App& bench, int& exit_code);

}  // namespace dspark::cli
