// dspark quantize: a GGUF file with smaller matrices, from GGUF or from a Hugging Face folder.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "cli/commands.h"
#include "cli/report.h"
#include "draft/draft_checkpoint.h"
#include "draft/draft_to_gguf.h"
#include "formats/checkpoint.h"
#include "formats/quantize_model.h"

namespace dspark::cli {
namespace {

namespace fs = std::filesystem;

struct QuantizeFlags {
  std::string input;
  std::string output;
  std::string type = "Q8_0";
  std::string embedding;
  std::string head;
  // Drafters only.
  std::string target;
  bool standalone = false;
  std::optional<int32_t> short_block;
  std::vector<std::string> keep;
  bool allow_requantize = false;
  bool force = false;
  bool quiet = false;
  int threads = 0;
};

Result<DType> parse_type(const std::string& flag, const std::string& name) {
  const std::optional<DType> dtype = dtype_from_name(name);
  if (dtype) return *dtype;  // whether it can be written is checked with the tensors
  return invalid_argument(
      fmt::format("{}: unknown type '{}' (writable: {})", flag, name, writable_type_names()));
}

Result<QuantizeOptions> to_options(const QuantizeFlags& flags) {
  QuantizeOptions options;
  DSPARK_ASSIGN_OR_RETURN(options.type, parse_type("--type", flags.type));
  if (!flags.embedding.empty()) {
    DSPARK_ASSIGN_OR_RETURN(options.embedding, parse_type("--token-embedding-type", flags.embedding));
  }
  if (!flags.head.empty()) {
    DSPARK_ASSIGN_OR_RETURN(options.output, parse_type("--output-type", flags.head));
  }
  options.keep = flags.keep;
  options.allow_requantize = flags.allow_requantize;
  return options;
}

/// The output must not be the input, part of it, a folder, or (without --force) anything that exists.
Status check_output(const QuantizeFlags& flags) {
  std::error_code ec;
  const fs::path input = flags.input;
  const fs::path output = flags.output;
  if (fs::is_directory(output, ec)) {
    return invalid_argument(fmt::format("'{}' is a folder, expected the name of a .gguf file", flags.output));
  }
  if (!fs::exists(output, ec)) return ok_status();
  if (fs::equivalent(input, output, ec)) {
    return invalid_argument(fmt::format("'{}' is the input; give the output another name", flags.output));
  }
  const fs::path parent = output.has_parent_path() ? output.parent_path() : fs::path(".");
  const bool beside_weights = fs::is_directory(input, ec) && fs::equivalent(input, parent, ec);
  if (beside_weights && output.extension() != ".gguf") {
    return invalid_argument(
        fmt::format("'{}' is a file of the input model, it is never overwritten", flags.output));
  }
  if (flags.force) return ok_status();
  return invalid_argument(fmt::format("'{}' exists already; --force overwrites it", flags.output));
}

double mebibytes(uint64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

void print_tensor(const QuantizedTensor& tensor, size_t index, size_t count) {
  const std::string shape = fmt::format("{}", fmt::join(tensor.shape, " x "));
  const std::string types = tensor.from == tensor.to
                                ? fmt::format("{} kept", dtype_name(tensor.to))
                                : fmt::format("{} -> {}{}", dtype_name(tensor.from), dtype_name(tensor.to),
                                              tensor.fallback ? " (row length)" : "");
  fmt::print("[{:4}/{:4}] {:36} {:>16}  {:28} {:9.2f} -> {:8.2f} MiB\n", index + 1, count, tensor.name, shape,
             types, mebibytes(tensor.bytes_before), mebibytes(tensor.bytes_after));
  std::fflush(stdout);
}

/// What --short-block changes about a drafter.
Status set_short_block(const QuantizeFlags& flags, DraftConfig& config) {
  if (!flags.short_block) return ok_status();
  if (!config.has_blocks()) {
    return invalid_argument(fmt::format("--short-block: {}: drafters of kind {} have no blocks", flags.input,
                                        draft_kind_name(config.kind)));
  }
  config.short_block = *flags.short_block;
  return check_short_block(config, "--short-block");
}

Result<QuantizeReport> quantize_drafter(Checkpoint input, const QuantizeFlags& flags,
                                        const QuantizeOptions& options, ThreadPool& pool,
                                        const QuantizeProgress& progress) {
  DSPARK_ASSIGN_OR_RETURN(DraftCheckpoint draft,
                          read_draft_checkpoint(std::make_shared<const Checkpoint>(std::move(input))));
  DSPARK_RETURN_IF_ERROR(set_short_block(flags, draft.config));
  DraftGgufOptions draft_options;
  draft_options.types = options;
  draft_options.standalone = flags.standalone;
  if (flags.target.empty()) return draft_to_gguf(draft, flags.output, draft_options, pool, progress);
  DSPARK_ASSIGN_OR_RETURN(const Checkpoint target, Checkpoint::open(flags.target));
  draft_options.target = &target;
  return draft_to_gguf(draft, flags.output, draft_options, pool, progress);
}

Result<QuantizeReport> quantize_any(Checkpoint input, const QuantizeFlags& flags,
                                    const QuantizeOptions& options, ThreadPool& pool) {
  const QuantizeProgress progress = flags.quiet ? QuantizeProgress() : QuantizeProgress(print_tensor);
  if (is_draft_checkpoint(input)) return quantize_drafter(std::move(input), flags, options, pool, progress);
  if (!flags.target.empty() || flags.standalone || flags.short_block) {
    return invalid_argument(fmt::format("{}: {} is for drafters, this is a model", flags.input,
                                        flags.standalone    ? "--standalone"
                                        : flags.short_block ? "--short-block"
                                                            : "--target"));
  }
  return quantize_model(input, flags.output, options, pool, progress);
}

Status quantize(const QuantizeFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  DSPARK_ASSIGN_OR_RETURN(const QuantizeOptions options, to_options(flags));
  DSPARK_ASSIGN_OR_RETURN(Checkpoint input, Checkpoint::open(flags.input));
  DSPARK_RETURN_IF_ERROR(check_output(flags));
  ThreadPool pool(flags.threads > 0 ? flags.threads : default_thread_count());
  DSPARK_ASSIGN_OR_RETURN(const QuantizeReport report, quantize_any(std::move(input), flags, options, pool));
  for (const std::string& note : report.notes) fmt::print("note: {}\n", note);
  const double bits = report.n_elements > 0 ? 8.0 * static_cast<double>(report.bytes_after) /
                                                  static_cast<double>(report.n_elements)
                                            : 0.0;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print("{}: {:.2f} -> {:.2f} MiB, {:.2f} bits per weight, {:.1f} s\n", flags.output,
             mebibytes(report.bytes_before), mebibytes(report.bytes_after), bits, seconds);
  return ok_status();
}

constexpr const char* kFooter =
    "Matrices get the type, vectors stay F32. The embedding and the head get Q8_0 when the type has 4 or 5 "
    "bits\n"
    "and nothing else is said. Rows that are no multiple of 256: Q4_K becomes Q5_0, Q5_K becomes Q5_1, Q6_K\n"
    "becomes Q8_0; rows that are no multiple of 32 stay 16-bit floats. A drafter (DeepSpec or speculators "
    "folder,\n"
    "GGUF) becomes one GGUF file in the layout of llama.cpp's architecture dflash.";

}  // namespace

void register_quantize(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command = app.add_subcommand(
      "quantize", "write a GGUF file with smaller weights from a GGUF file or a model folder");
  command
      ->add_option("input", flags->input, "GGUF file or Hugging Face model folder, of a model or a drafter")
      ->required();
  command->add_option("output", flags->output, "GGUF file to write")->required();
  command->add_option("--type", flags->type, "type of the matrices: " + writable_type_names())
      ->capture_default_str();
  command->add_option("--token-embedding-type", flags->embedding, "type of token_embd.weight");
  command->add_option("--output-type,--output-tensor-type", flags->head, "type of output.weight");
  command
      ->add_option("--keep-float", flags->keep,
                   "leave tensors whose GGUF name matches as they are stored, e.g. 'blk.0.*' (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  command
      ->add_option("--target", flags->target,
                   "drafters: the target; its tokenizer is copied, equal embeddings and heads are left out")
      ->type_name("FILE|DIR");
  command->add_flag(
      "--standalone", flags->standalone,
      "drafters with a reduced vocabulary: write rows of the target's head too (needs --target)");
  command->add_option(
      "--short-block", flags->short_block,
      "DSpark and DFlash drafters: slots of the short blocks that few drafts come from (0: none)");
  command->add_flag("--allow-requantize", flags->allow_requantize,
                    "accept input that is quantised already (adds a second error)");
  command->add_flag("--force", flags->force, "overwrite an existing output file");
  command->add_flag("-q,--quiet", flags->quiet, "no line per tensor");
  command->add_option("-t,--threads", flags->threads, "threads (default: one per processor)")
      ->check(CLI::Range(1, 1024));
  command->footer(kFooter);
  command->callback([flags, &exit_code] {
    const Status status = quantize(*flags);
    exit_code = status.ok() ? 0 : report_failure(status);
  });
}

}  // namespace dspark::cli
