// dspark bench load: what verify policies bring when many ask at once.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/bench_commands.h"
#include "cli/load_report.h"
#include "cli/load_sweep.h"
#include "cli/report.h"
#include "formats/atomic_file.h"

namespace dspark::cli {
namespace {

Status write_json(const std::string& path, const LoadReport& report) {
  const std::string text =
      load_report_json(report).dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return ok_status();
  }
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

Status record(LoadSweep& sweep, const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const RoundTrace trace, sweep.record());
  DSPARK_RETURN_IF_ERROR(write_round_trace(path, trace));
  std::printf("%s: %zu answers, %lld tokens\n", path.c_str(), trace.answers.size(),
              static_cast<long long>(trace.n_tokens()));
  return ok_status();
}

Status run_load_bench(const LoadFlags& flags) {
  DSPARK_ASSIGN_OR_RETURN(LoadSweep sweep, LoadSweep::open(flags));
  if (!flags.record.empty()) return record(sweep, flags.record);
  DSPARK_ASSIGN_OR_RETURN(const LoadReport report, sweep.run());
  if (!flags.json.empty()) DSPARK_RETURN_IF_ERROR(write_json(flags.json, report));
  if (!flags.plot.empty()) DSPARK_RETURN_IF_ERROR(write_load_plots(flags.plot, report));
  if (flags.json != "-") std::fputs(load_report_text(report).c_str(), stdout);
  if (report.texts_comparable && report.texts.different() > 0) {
    return internal_error("texts differ between policies: " + report.texts.first_difference());
  }
  for (const LoadVerdict& verdict : report.verdicts) {
    if (flags.strict && !verdict.pass) return internal_error("the adaptive policy lost more than it may");
  }
  return ok_status();
}

}  // namespace

void register_bench_load(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<LoadFlags>();
  CLI::App* command = bench.add_subcommand(
      "load", "put the engine under load and compare verify policies: speed, latency, texts");
  add_load_flags(*command, *flags);
  command->callback([flags, &exit_code] {
    const Status status = run_load_bench(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
