#pragma once
// The subcommands of `dspark`. Each lives in cmd_<name>.cc: its register function adds the subcommand with
// its options and a callback that does the work and stores the exit status.

namespace CLI {
class App;
}

namespace dspark::cli {

/// Each adds one subcommand to `app`. The callback runs after the whole command line was accepted and writes
/// 0 (done), 1 (failed) or 2 (wrong usage) to `exit_code`; both references must outlive the parse.
void register_run(CLI::App& app, int& exit_code);
void register_serve(CLI::App& app, int& exit_code);
void register_bench(CLI::App& app, int& exit_code);
void register_profile(CLI::App& app, int& exit_code);
void register_plan(CLI::App& app, int& exit_code);
void register_inspect(CLI::App& app, int& exit_code);
void register_quantize(CLI::App& app, int& exit_code);
void register_data(CLI::App& app, int& exit_code);
void register_tokenize(CLI::App& app, int& exit_code);
void register_logits(CLI::App& app, int& exit_code);
void register_draft(CLI::App& app, int& exit_code);
void register_eval(CLI::App& app, int& exit_code);
void register_calibrate(CLI::App& app, int& exit_code);
void register_perplexity(CLI::App& app, int& exit_code);

/// `dspark train` is another program (it links libtorch): this only lists it in the help.
void register_train(CLI::App& app);
bool is_train_command(int argc, const char* const* argv);
/// Replaces this process by dspark-train. returns: an exit status, when that is not possible.
int run_train(int argc, const char* const* argv);

}  // namespace dspark::cli
