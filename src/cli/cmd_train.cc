// dspark train: hands over to dspark-train beside this program, which links libtorch.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/report.h"

namespace dspark::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProgram = "dspark-train";

/// The trainer beside the running program; empty when it was not built.
fs::path trainer_path() {
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec);
  if (ec) return {};
  const fs::path trainer = self.parent_path() / kProgram;
  return fs::is_regular_file(trainer, ec) ? trainer : fs::path();
}

}  // namespace

bool is_train_command(int argc, const char* const* argv) {
  return argc > 1 && std::strcmp(argv[1], "train") == 0;
}

int run_train(int argc, const char* const* argv) {
  const fs::path trainer = trainer_path();
  if (trainer.empty()) {
    return report_failure(unsupported(
        fmt::format("dspark train: {} is not beside this program. It is built when libtorch is there: run "
                    "scripts/setup-torch, then configure and build again",
                    kProgram)));
  }
  std::vector<std::string> arguments = {trainer.string()};
  arguments.insert(arguments.end(), argv + 2, argv + argc);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  execv(trainer.c_str(), pointers.data());
  return report_failure(
      unsupported(fmt::format("{}: cannot be run: {}", trainer.string(), std::strerror(errno))));
}

void register_train(CLI::App& app) {
  app.add_subcommand("train", "train a drafter from target caches (needs libtorch: scripts/setup-torch)");
}

}  // namespace dspark::cli
