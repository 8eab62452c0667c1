// dspark bench: how fast this machine runs a model.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/bench_commands.h"
#include "cli/bench_runner.h"
#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "kernels/isa.h"

namespace dspark::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchFlags {
  ModelFlags model;
  BenchPlan plan;
  bool json = false;
};

// What the weights alone would need: bytes of the packed weights over the time of a pass.
double weight_gb_per_s(const LoadedModel& loaded, double seconds) {
  return static_cast<double>(loaded.model->weight_bytes()) / seconds * 1e-9;
}

Json to_json(const LoadedModel& loaded, const BenchResult& result) {
  Json rows = Json::array();
  for (const BenchSeries& s : result.prefill) {
    rows.push_back({{"test", "prefill"},
                    {"tokens", s.size},
                    {"tokens_per_s", s.size / s.median()},
                    {"min", s.size / s.max()},
                    {"max", s.size / s.min()}});
  }
  for (const BenchSeries& s : result.decode) {
    rows.push_back({{"test", "decode"},
                    {"depth", s.size},
                    {"tokens_per_s", 1 / s.median()},
                    {"min", 1 / s.max()},
                    {"max", 1 / s.min()},
                    {"weight_gb_per_s", weight_gb_per_s(loaded, s.median())}});
  }
  for (const BenchSeries& s : result.pass) {
    rows.push_back({{"test", "pass"},
                    {"rows", s.size},
                    {"ms", s.median() * 1e3},
                    {"depth", s.pass_depth},
                    {"min", s.min() * 1e3},
                    {"max", s.max() * 1e3}});
  }
  return rows;
}

// Rows beside the pass over one row at the same depth, if there is one.
void print_passes(const std::vector<BenchSeries>& passes) {
  for (size_t i = 0; i < passes.size(); ++i) {
    const BenchSeries& s = passes[i];
    if (i == 0 || s.pass_depth != passes[i - 1].pass_depth) {
      fmt::print("passes with {} tokens in the cache:\n", s.pass_depth);
    }
    const auto one_row = std::find_if(passes.begin(), passes.end(), [&](const BenchSeries& other) {
      return other.size == 1 && other.pass_depth == s.pass_depth;
    });
    fmt::print("pass of {:3} row(s)     {:9.3f} ms     ({:.3f} - {:.3f})", s.size, s.median() * 1e3,
               s.max() * 1e3, s.min() * 1e3);
    if (one_row != passes.end()) fmt::print("  {:.2f} x one row", s.median() / one_row->median());
    fmt::print("\n");
  }
}

void print_table(const LoadedModel& loaded, const BenchPlan& plan, const BenchResult& result) {
  fmt::print("{}, {} kernels, {} thread(s), weights {:.1f} MB, loaded in {:.2f} s\n", loaded.path,
             isa_name(active_isa()), loaded.pool->n_threads(),
             static_cast<double>(loaded.model->weight_bytes()) * 1e-6, loaded.load_s);
  fmt::print("{} repeats, medians (slowest - fastest)\n\n", plan.repeats);
  for (const BenchSeries& s : result.prefill) {
    fmt::print("prefill {:5} tokens   {:9.1f} tok/s  ({:.1f} - {:.1f})\n", s.size, s.size / s.median(),
               s.size / s.max(), s.size / s.min());
  }
  for (const BenchSeries& s : result.decode) {
    fmt::print("decode at depth {:5}  {:9.1f} tok/s  ({:.1f} - {:.1f})  weights at {:.1f} GB/s\n", s.size,
               1 / s.median(), 1 / s.max(), 1 / s.min(), weight_gb_per_s(loaded, s.median()));
  }
  print_passes(result.pass);
}

Status bench(BenchFlags& flags) {
  DSPARK_ASSIGN_OR_RETURN(flags.plan.kv_dtype, parse_kv_type(flags.model.kv_type));
  DSPARK_ASSIGN_OR_RETURN(const LoadedModel loaded, load_with_progress(flags.model));
  ProgressLine progress;
  const auto on_progress = [&](std::string_view text) { progress.show("bench: " + std::string(text)); };
  DSPARK_ASSIGN_OR_RETURN(const BenchResult result, run_bench_plan(*loaded.model, flags.plan, on_progress));
  progress.clear();
  if (flags.json) {
    // One row a line: a list for programs, and still readable.
    std::string text = "[";
    for (const Json& row : to_json(loaded, result)) {
      text += (text.size() > 1 ? ",\n " : "") + row.dump();
    }
    fmt::print("{}]\n", text);
  } else {
    print_table(loaded, flags.plan, result);
  }
  return ok_status();
}

}  // namespace

void register_bench(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand(
      "bench", "measure prompt reading, decoding at several depths, and the cost of a pass over n rows");
  add_model_flags(*command, flags->model);
  BenchPlan& plan = flags->plan;
  command->add_option("--rows", plan.rows, "rows of the measured passes, e.g. 1,8,32")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--prefill", plan.prefill_tokens, "tokens of the prefill test (0: none)")
      ->capture_default_str();
  command->add_option("--depths", plan.depths, "tokens in the cache before the decode test")
      ->delimiter(',')
      ->capture_default_str();
  command
      ->add_option("--pass-depths,--pass-depth", plan.pass_depths,
                   "tokens in the cache before the measured passes, e.g. 128,4096")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("-r,--repeats", plan.repeats, "repetitions; medians are reported")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "print a list of rows as JSON");
  command->require_subcommand(0, 1);
  register_bench_load(*command, exit_code);
  register_bench_schedule(*command, exit_code);
  command->callback([flags, command, &exit_code] {
    if (!command->get_subcommands().empty()) return;  // it has done the work
    const Status status = bench(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
