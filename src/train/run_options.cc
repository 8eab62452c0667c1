#include "train/run_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "formats/atomic_file.h"
#include "formats/json_reader.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kPrecision = "precision";
constexpr const char* kHoldoutUnit = "holdout-unit";

const char* precision_name(Precision precision) {
  return precision == Precision::kFloat32 ? "fp32" : "bf16";
}

/// The last part of a path: folders may move between two parts of a run.
std::string base_name(const std::string& path) {
  const fs::path normal = fs::path(path).lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).filename().string();
}

/// By the names of the command line, without dashes.
ordered_json options_json(const TrainOptions& o) {
  ordered_json out = {{"model", base_name(o.target)}, {"data", ordered_json::array()}};
  for (const std::string& cache : o.caches) out["data"].push_back(base_name(cache));
  out["taps"] = o.taps;
  out["max-length"] = o.max_length;
  out["log-sum-exp"] = o.log_sum_exp;
  out["init"] = base_name(o.init);
  out["steps"] = o.steps;
  out["minutes"] = o.minutes;
  out["kind"] = o.kind;
  out["layers"] = o.layers;
  out["block"] = o.block_size;
  out["rank"] = o.markov_rank;
  out["head"] = o.head;
  out["draft-vocab"] = o.draft_vocab;
  out["draft-vocab-file"] = base_name(o.draft_vocab_file);
  out["mask-token"] = o.mask_token;
  out["no-warm-start"] = !o.warm_start;
  out["kv-heads"] = o.kv_heads;
  out["add-layers"] = o.add_layers;
  // Of all processes: how many share a micro-step does not change it.
  out["sequences"] = int64_t{o.sequences} * o.processes.world;
  out["anchors"] = o.anchors;
  out["accumulate"] = o.accumulate;
  out["max-context"] = o.max_context;
  out["ce"] = o.ce;
  out["soft-ce"] = o.soft_ce;
  out["l1"] = o.l1;
  out["confidence"] = o.confidence;
  out["decay"] = o.decay;
  out["first-stage"] = o.first_stage;
  out["first-anchors"] = o.first_anchors;
  out["short-blocks"] = o.short_blocks;
  out["short-block"] = o.short_block_size;
  out["curriculum"] = o.curriculum;
  out["loss-slide"] = o.loss_slide;
  out["lr"] = o.learning_rate;
  out["warmup"] = o.warmup;
  out["beta1"] = o.beta1;
  out["beta2"] = o.beta2;
  out["weight-decay"] = o.weight_decay;
  out["clip"] = o.clip;
  out["step-scale"] = o.step_scale;
  out["average"] = o.average;
  out["seed"] = o.seed;
  out["holdout"] = o.holdout;
  out[kHoldoutUnit] = "prompt";
  return out;
}

Status differs(const std::string& option, const json& begun, const json& found, const char* rule) {
  return invalid_argument(
      fmt::format("--{}: the run began with {}, found {}; {}", option, begun.dump(), found.dump(), rule));
}

/// The kind stays, the amount may grow.
Status check_budget(const std::string& option, const json& begun, const json& found) {
  if (!begun.is_number() || (begun.get<double>() > 0) != (found.get<double>() > 0)) {
    return differs(option, begun, found, "a run keeps the kind of its budget");
  }
  if (found.get<double>() >= begun.get<double>()) return ok_status();
  return differs(option, begun, found, "a budget can only grow");
}

Status check_caches(const json& begun, const json& found) {
  const bool starts_alike = begun.is_array() && begun.size() <= found.size() &&
                            std::equal(begun.begin(), begun.end(), found.begin());
  return starts_alike ? ok_status() : differs("data", begun, found, "caches can only be added at the end");
}

}  // namespace

Status save_run_options(const std::string& path, const TrainOptions& options, Precision precision) {
  ordered_json out = options_json(options);
  out[kPrecision] = precision_name(precision);
  const std::string text = out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

Result<Precision> check_run_options(const std::string& path, const TrainOptions& options,
                                    Precision precision) {
  std::error_code ec;
  if (!fs::exists(path, ec)) return precision;
  DSPARK_ASSIGN_OR_RETURN(json begun, read_json_file(path));
  if (!begun.is_object()) return corrupt_data(path + ": expected an object of options");
  // The older name of one kind.
  if (!begun.contains("kind") && begun.value("dflash", json()) == true) begun["kind"] = "dflash";
  const json share = begun.value("holdout", json(TrainOptions().holdout));
  if (share.is_number() && share.get<double>() > 0 && !begun.contains(kHoldoutUnit)) {
    return invalid_argument(path +
                            ": an older version began this run and held answers out, not prompts; begin a "
                            "new one (--init takes its drafter)");
  }
  // What the file does not name came later: the run had its default.
  const json defaults = options_json(TrainOptions());
  const json current = options_json(options);
  for (const auto& [option, found] : current.items()) {
    const json& before = begun.contains(option) ? begun.at(option) : defaults.at(option);
    if (option == "steps" || option == "minutes") {
      DSPARK_RETURN_IF_ERROR(check_budget(option, before, found));
    } else if (option == "data") {
      DSPARK_RETURN_IF_ERROR(check_caches(before, found));
    } else if (before != found && option == "sequences") {
      return differs(option, before, found, "a micro-step keeps the sequences of all processes together");
    } else if (before != found) {
      return differs(option, before, found, "repeat the options of the run");
    }
  }
  const std::string name = begun.value(kPrecision, precision_name(precision));
  const Precision used =
      name == precision_name(Precision::kFloat32) ? Precision::kFloat32 : Precision::kBFloat16;
  if (options.float32 && used != Precision::kFloat32) {
    return invalid_argument("--float32: the run began with bf16 products; repeat the options of the run");
  }
  if (options.bf16 && used != Precision::kBFloat16) {
    return invalid_argument("--bf16: the run began with fp32 products; repeat the options of the run");
  }
  return used;
}

}  // namespace dspark
