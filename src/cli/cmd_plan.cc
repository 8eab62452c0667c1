// dspark plan: what a model and its drafter need, from their configs alone.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/thread_pool.h"
#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/read_probe.h"
#include "cli/report.h"
#include "draft/capacity_plan.h"

namespace dspark::cli {
namespace {

constexpr double kGiga = 1e9;

struct PlanFlags {
  std::string model;
  std::string draft = "none";
  std::string memory;
  std::string bandwidth;
  std::string kv_type = "bf16";
  PlanOptions options;
  bool json = false;
};

/// "64G", "51.2GB", "64GiB": a positive number of bytes. errors: invalid_argument naming `flag`.
Result<double> parse_bytes(const std::string& text, const char* flag) {
  char* end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  std::string unit(end);
  if (!unit.empty() && unit.back() == 'B') unit.pop_back();
  const bool binary = unit.size() == 2 && unit[1] == 'i';
  if (binary) unit.pop_back();
  const std::string units = "KMGT";
  const size_t power = unit.size() == 1 ? units.find(unit[0]) : std::string::npos;
  const bool known = unit.empty() || power != std::string::npos;
  if (end == text.c_str() || !known || !(value > 0.0) || value > 1e18) {
    return invalid_argument(fmt::format("{}: want a size like 64G or 64GiB, found '{}'", flag, text));
  }
  for (size_t i = 0; !unit.empty() && i <= power; ++i) value *= binary ? 1024.0 : 1000.0;
  return value;
}

double memory_of_this_machine() {
  return static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
}

nlohmann::ordered_json part_json(const PlanPart& part) {
  return {{"parameters", part.parameters},
          {"active_parameters", part.active_parameters},
          {"disk_bytes", part.disk_bytes},
          {"weight_bytes", part.weight_bytes},
          {"cache_bytes_per_token", part.cache_bytes_per_token},
          {"cache_bytes", part.cache_bytes}};
}

void print_part(const char* name, const PlanPart& part) {
  fmt::print("{:<8} {:>15} parameters, {:.2f} billion used per token\n", name, part.parameters,
             static_cast<double>(part.active_parameters) / kGiga);
  fmt::print("         weights {:.2f} GB on disk, {:.2f} GB in memory\n", part.disk_bytes / kGiga,
             part.weight_bytes / kGiga);
  fmt::print("         cache {:.1f} kB per token, {:.2f} GB in all\n", part.cache_bytes_per_token / 1e3,
             part.cache_bytes / kGiga);
}

/// What memory delivers, and who says so.
struct Bandwidth {
  double bytes_per_s = 0.0;  // 0: unknown
  bool measured = false;     // on this machine, by this command
};

Result<Bandwidth> bandwidth_of(const PlanFlags& flags) {
  Bandwidth bandwidth;
  if (flags.bandwidth.empty()) {
    ThreadPool pool(default_thread_count());
    bandwidth.bytes_per_s = measure_read_bandwidth(pool);
    bandwidth.measured = true;
    return bandwidth;
  }
  DSPARK_ASSIGN_OR_RETURN(bandwidth.bytes_per_s, parse_bytes(flags.bandwidth, "--bandwidth"));
  return bandwidth;
}

void print_plan(const CapacityPlan& plan, const PlanFlags& flags, double memory, Bandwidth bandwidth) {
  print_part("target", plan.target);
  if (plan.draft) print_part("drafter", *plan.draft);
  fmt::print("memory   {:.2f} GB for {} sequence(s) of {} tokens: {} {:.2f} GB\n", plan.total_bytes / kGiga,
             flags.options.batch, flags.options.context,
             plan.total_bytes <= memory ? "fits into" : "does not fit into", memory / kGiga);
  fmt::print("reads    {:.2f} GB per step", plan.step_bytes / kGiga);
  if (plan.draft) fmt::print(", {:.2f} GB per round of {} drafts", plan.round_bytes / kGiga, plan.block);
  fmt::print("\n");
  if (bandwidth.bytes_per_s <= 0.0) {
    fmt::print("roof     give --bandwidth for tokens per second\n");
    return;
  }
  fmt::print("memory   reads {:.1f} GB/s ({})\n", bandwidth.bytes_per_s / kGiga,
             bandwidth.measured ? "measured just now on this machine" : "as given");
  fmt::print("roof     {:.2f} tokens/s without drafts",
             plan.plain_roof(bandwidth.bytes_per_s, flags.options));
  if (plan.draft) {
    fmt::print(", {:.2f} with {} tokens per round", plan.draft_roof(bandwidth.bytes_per_s, flags.options),
               flags.options.accept_length);
  }
  fmt::print(" (all sequences together)\n");
}

void print_json(const CapacityPlan& plan, const PlanFlags& flags, double memory, Bandwidth bandwidth) {
  nlohmann::ordered_json out = {{"target", part_json(plan.target)}};
  if (plan.draft) out["draft"] = part_json(*plan.draft);
  if (plan.draft) out["block"] = plan.block;
  out["total_bytes"] = plan.total_bytes;
  out["memory_bytes"] = memory;
  out["fits"] = plan.total_bytes <= memory;
  out["step_bytes"] = plan.step_bytes;
  if (plan.draft) out["round_bytes"] = plan.round_bytes;
  if (bandwidth.bytes_per_s > 0.0) {
    out["bandwidth_bytes_per_second"] = bandwidth.bytes_per_s;
    out["bandwidth_measured"] = bandwidth.measured;
    out["plain_tokens_per_second"] = plan.plain_roof(bandwidth.bytes_per_s, flags.options);
    if (plan.draft) out["draft_tokens_per_second"] = plan.draft_roof(bandwidth.bytes_per_s, flags.options);
  }
  fmt::print("{}\n", out.dump(2));
}

Status run(PlanFlags& flags) {
  double memory = memory_of_this_machine();
  if (!flags.memory.empty()) {
    DSPARK_ASSIGN_OR_RETURN(memory, parse_bytes(flags.memory, "--memory"));
  }
  DSPARK_ASSIGN_OR_RETURN(flags.options.kv_dtype, parse_kv_type(flags.kv_type));
  DSPARK_ASSIGN_OR_RETURN(const Checkpoint target, Checkpoint::open_config(flags.model));
  const bool bundled = flags.draft == "bundled";
  std::optional<Checkpoint> draft;
  if (flags.draft != "none" && !bundled) {
    DSPARK_ASSIGN_OR_RETURN(draft, Checkpoint::open_config(flags.draft));
  }
  const Checkpoint* drafter = bundled ? &target : draft ? &*draft : nullptr;
  DSPARK_ASSIGN_OR_RETURN(const CapacityPlan plan, plan_capacity(target, drafter, flags.options));
  DSPARK_ASSIGN_OR_RETURN(const Bandwidth bandwidth, bandwidth_of(flags));
  if (flags.json) {
    print_json(plan, flags, memory, bandwidth);
  } else {
    print_plan(plan, flags, memory, bandwidth);
  }
  return ok_status();
}

}  // namespace

void register_plan(CLI::App& app, int& exit_code) {
  const auto flags = std::make_shared<PlanFlags>();
  CLI::App* command = app.add_subcommand("plan", "memory and speed limits of a model, from its config alone");
  command->add_option("-m,--model", flags->model, "model folder (config.json is enough) or file")->required();
  command->add_option("--draft", flags->draft, "folder or file of a drafter, 'bundled' or 'none'");
  command->add_option("--memory", flags->memory,
                      "memory of the machine, e.g. 64G or 64GiB (default: this one's)");
  command->add_option(
      "--bandwidth", flags->bandwidth,
      "bytes per second that its memory delivers, e.g. 80G (default: measured here, in a fraction "
      "of a second)");
  command->add_option("-c,--ctx-size", flags->options.context, "tokens of every sequence");
  command->add_option("--parallel", flags->options.batch, "sequences that decode together");
  command->add_option("--bits", flags->options.weight_bits,
                      "bits per weight, e.g. 4.5 for Q4_K, 8.5 for Q8_0 (default: as released)");
  command->add_option("--kv-type", flags->kv_type, "element type of the cache: bf16, f32, q8_0");
  command->add_option("--accept-length", flags->options.accept_length,
                      "tokens that a verified block brings, the one behind the drafts included");
  command->add_flag("--json", flags->json, "print JSON");
  command->callback([flags, &exit_code] {
    const Status status = run(*flags);
    exit_code = status.ok() ? 0 : report_failure(status);
  });
}

}  // namespace dspark::cli
