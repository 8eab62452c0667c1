// dspark profile: what passes cost on this machine, the table behind adaptive verification.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/spec_flags.h"
#include "cli/svg_chart.h"
#include "engine/cost_file.h"
#include "engine/cost_probe.h"
#include "formats/atomic_file.h"

namespace dspark::cli {
namespace {

using Json = nlohmann::ordered_json;

struct ProfileFlags {
  ModelFlags model;
  std::string drafter = "none";
  bool hybrid = true;
  int32_t sequences = 8;
  int32_t rows = 64;
  int32_t context = 128;
  int32_t long_context = 8192;
  double seconds = 2.0;
  std::string cost_table;  // shown instead of a measured one
  std::string output;      // cost table
  std::string plot;        // SVG
  bool json = false;
};

Json points_json(const std::vector<CostPoint>& points) {
  Json list = Json::array();
  for (const CostPoint& point : points) list.push_back({{"n", point.n}, {"ms", point.seconds * 1e3}});
  return list;
}

Json curve_json(const std::vector<ContextPoint>& curve) {
  Json list = Json::array();
  for (const ContextPoint& point : curve) {
    list.push_back({{"positions", point.positions}, {"counted", point.counted}});
  }
  return list;
}

Json to_json(const CostKey& key, const CostTable& table) {
  return {{"model", key.model},
          {"machine", key.machine},
          {"threads", key.threads},
          {"kv_type", key.kv_type},
          {"drafter", key.drafter},
          {"verify", points_json(table.verify)},
          {"draft", points_json(table.draft)},
          {"draft_short", points_json(table.draft_short)},
          {"draft_stair", points_json(table.draft_stair)},
          {"stair_length", table.stair_length},
          {"draft_length", table.draft_length},
          {"ms_per_context_position", table.context_s * 1e3},
          {"ms_per_row_and_context_position", table.row_context_s * 1e3},
          {"context_curve", curve_json(table.context_curve)}};
}

void print_points(const char* title, const char* unit, const std::vector<CostPoint>& points,
                  double one_row_s) {
  if (points.empty()) return;
  fmt::print("\n{}\n", title);
  for (const CostPoint& point : points) {
    fmt::print("{:6} {:9}{:11.3f} ms   {:6.2f} x one row\n", point.n, unit, point.seconds * 1e3,
               point.seconds / one_row_s);
  }
}

constexpr int32_t kFewRows = 8;  // of a pass whose context is shown

/// What so many positions of context add to a pass of one sequence.
double context_ms(const CostTable& table, int32_t positions, int32_t rows) {
  return table.counted_positions(positions) * (table.context_s + rows * table.row_context_s) * 1e3;
}

void print_context(const CostTable& table) {
  if (table.context_curve.empty()) {
    fmt::print("\n{:.3f} us more per position of context, {:.3f} us per position and row\n",
               table.context_s * 1e6, table.row_context_s * 1e6);
    return;
  }
  fmt::print("\nmore per context, between these and beyond in proportion\n");
  for (const ContextPoint& point : table.context_curve) {
    fmt::print("{:6} position(s){:11.3f} ms with 1 row{:11.3f} ms with {} rows\n", point.positions,
               context_ms(table, point.positions, 1), context_ms(table, point.positions, kFewRows), kFewRows);
  }
}

void print_table(const CostKey& key, const CostTable& table) {
  const double one_row_s = table.verify.front().seconds;
  fmt::print("{}\n{}, {} thread(s), {} cache\n", key.model, key.machine, key.threads, key.kv_type);
  fmt::print("drafter: {}\n", key.drafter);
  print_points("pass of the target, without context", "row(s)", table.verify, one_row_s);
  print_context(table);
  const std::string whole = fmt::format("pass of the drafter, {} drafts per sequence", table.draft_length);
  print_points(whole.c_str(), "sequence", table.draft, one_row_s);
  const std::string most = fmt::format("pass of the drafter, short blocks of {} drafts", table.stair_length);
  print_points(most.c_str(), "sequence", table.draft_stair, one_row_s);
  print_points("pass of the drafter, 1 draft per sequence", "sequence", table.draft_short, one_row_s);
}

ChartLine line_of(const char* name, const std::vector<CostPoint>& points, bool emphasised, bool dashed) {
  ChartLine line;
  line.name = name;
  line.emphasised = emphasised;
  line.dashed = dashed;
  for (const CostPoint& point : points) line.points.emplace_back(point.n, point.seconds * 1e3);
  return line;
}

Status write_chart(const std::string& path, const Chart& chart) {
  const std::string svg = chart_svg(chart);
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(svg.data()), svg.size()}));
  return file.commit();
}

/// "costs.svg" -> "costs-context.svg".
std::string context_plot_path(const std::string& path) {
  const std::filesystem::path file(path);
  return (file.parent_path() / (file.stem().string() + "-context" + file.extension().string())).string();
}

Status plot_context(const std::string& path, const CostTable& table) {
  constexpr int32_t kSlope = 2048;  // shown where all positions cost the same
  Chart chart;
  chart.title = "Cost of context";
  chart.x_label = "positions of context of one sequence";
  chart.y_label = "ms more";
  for (const int32_t rows : {1, kFewRows}) {
    ChartLine line;
    line.name = rows == 1 ? "1 row" : fmt::format("{} rows", rows);
    line.emphasised = rows == 1;
    line.points.emplace_back(0.0, 0.0);
    for (const ContextPoint& point : table.context_curve) {
      line.points.emplace_back(point.positions, context_ms(table, point.positions, rows));
    }
    if (table.context_curve.empty()) line.points.emplace_back(kSlope, context_ms(table, kSlope, rows));
    chart.lines.push_back(std::move(line));
  }
  fit_axes(chart, true);
  return write_chart(path, chart);
}

Status plot_passes(const std::string& path, const CostTable& table) {
  Chart chart;
  chart.title = "Cost of a pass";
  chart.x_label = "rows (target) or sequences (drafter)";
  chart.y_label = "ms";
  chart.x_min = 0.0;
  chart.lines.push_back(line_of("target", table.verify, true, false));
  if (!table.draft.empty()) chart.lines.push_back(line_of("drafter, whole block", table.draft, false, false));
  if (!table.draft_short.empty())
    chart.lines.push_back(line_of("drafter, 1 draft", table.draft_short, false, true));
  fit_axes(chart, true);
  return write_chart(path, chart);
}

/// Prints and draws a table as the flags ask for.
Status show_table(const ProfileFlags& flags, const CostKey& key, const CostTable& table) {
  if (!flags.plot.empty()) {
    DSPARK_RETURN_IF_ERROR(plot_passes(flags.plot, table));
    DSPARK_RETURN_IF_ERROR(plot_context(context_plot_path(flags.plot), table));
  }
  if (flags.json) {
    fmt::print("{}\n", to_json(key, table).dump(1));
  } else {
    print_table(key, table);
  }
  return ok_status();
}

CostProbeOptions probe_options(const ProfileFlags& flags, const EngineOptions& options) {
  constexpr int32_t kSecondContext = 2048;  // as at the start of an engine
  CostProbeOptions probe;
  probe.max_rows = flags.rows;
  probe.max_sequences = flags.sequences;
  probe.kv_dtype = options.kv_dtype;
  probe.most_context = std::min(flags.long_context, options.context_length - flags.rows);
  probe.long_context = std::min(kSecondContext, probe.most_context);
  probe.context = std::min(flags.context, probe.long_context / 2);
  probe.budget_s = flags.seconds;
  return probe;
}

Status profile(const ProfileFlags& flags) {
  SpecFlags spec;
  spec.drafter = flags.drafter;
  DSPARK_RETURN_IF_ERROR(check_spec(spec).status());
  EngineOptions options;
  options.max_sequences = flags.sequences;
  options.context_length = flags.long_context + flags.rows + kMaxDraftTokens;
  DSPARK_ASSIGN_OR_RETURN(options.kv_dtype, parse_kv_type(flags.model.kv_type));
  DSPARK_ASSIGN_OR_RETURN(LoadedModel loaded, load_with_progress(flags.model, flags.json));
  const int32_t trained = loaded.model->config().context_length;
  if (trained > 0) options.context_length = std::min(options.context_length, trained);
  DrafterOptions wanted;
  wanted.spec = flags.drafter;
  wanted.hybrid = flags.hybrid;
  DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<Drafter> drafter, load_drafter(loaded, options, wanted));
  if (drafter != nullptr) {
    const auto taps = drafter->tap_layers();
    loaded.model->set_capture_layers(std::vector<int32_t>(taps.begin(), taps.end()));
  }
  const CostProbeOptions probe = probe_options(flags, options);
  if (probe.context < 1) {
    return invalid_argument(
        fmt::format("--rows: {} rows do not fit the model's context of {} tokens", flags.rows, trained));
  }
  DSPARK_ASSIGN_OR_RETURN(const CostTable table, measure_costs(*loaded.model, drafter.get(), probe));
  const CostKey key = cost_key(loaded, drafter.get(), flags.drafter, options);
  if (!flags.output.empty()) DSPARK_RETURN_IF_ERROR(write_costs(flags.output, {key, table, {}}));
  return show_table(flags, key, table);
}

Status show_stored(const ProfileFlags& flags) {
  DSPARK_ASSIGN_OR_RETURN(const SavedCosts saved, read_costs(flags.cost_table));
  return show_table(flags, saved.key, saved.table);
}

}  // namespace

void register_profile(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ProfileFlags>();
  CLI::App* command = app.add_subcommand(
      "profile", "measure what passes of a model and its drafter cost, the table behind --spec adaptive");
  add_model_flags(*command, flags->model);
  command->add_option("-d,--drafter", flags->drafter, "none, ngram, or the path of a learned drafter")
      ->capture_default_str();
  command->add_flag("--hybrid,!--no-hybrid", flags->hybrid,
                    "join a learned drafter with prompt lookup (default: yes)");
  command->add_option("--sequences", flags->sequences, "largest batch of the drafter")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--rows", flags->rows, "largest pass of the target")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--context", flags->context, "tokens in the cache during the measurements")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      ->add_option(
          "--long-context", flags->long_context,
          "the longest of the contexts that are measured to see what they cost, as far as the model's "
          "own, memory and time suffice")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command->add_option("--seconds", flags->seconds, "time for passes")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  CLI::Option* output =
      command->add_option("-o,--output", flags->output, "write the table to this file, for --cost-table");
  command
      ->add_option("--cost-table", flags->cost_table,
                   "measure nothing: show the table in this file, whatever model and machine it is of")
      ->excludes(output);
  command->add_option("--plot", flags->plot,
                      "draw the table into this SVG file, and what context costs into NAME-context.svg");
  command->add_flag("--json", flags->json, "print one object");
  command->callback([flags, &exit_code] {
    const Status status = flags->cost_table.empty() ? profile(*flags) : show_stored(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
