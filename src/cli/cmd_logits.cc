// dspark logits: logits and residual streams of a token list as a safetensors file, to compare engines.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/report.h"
#include "cli/sequence_runner.h"
#include "formats/safetensors_writer.h"

namespace dspark::cli {
namespace {

struct LogitsFlags {
  ModelFlags model;
  std::vector<int32_t> tokens;
  std::vector<int32_t> layers;
  std::string output;
  std::string dtype = "auto";
};

template <typename Values>
std::span<const uint8_t> byte_view(const Values& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(values[0])};
}

std::string stream_name(int32_t layer) {
  return fmt::format("hidden.{}", layer);
}

Status declare_all(SafetensorsWriter& writer, const LogitsFlags& flags, const ModelConfig& config) {
  const auto n = static_cast<int64_t>(flags.tokens.size());
  writer.set_metadata("format", "dspark logits");
  writer.set_metadata("model", config.name);
  writer.set_metadata("dtype", flags.dtype);
  DSPARK_RETURN_IF_ERROR(writer.declare("logits", DType::kF32, {n, config.vocab_size}));
  DSPARK_RETURN_IF_ERROR(writer.declare("final_norm", DType::kF32, {n, config.dim}));
  for (int32_t layer : flags.layers) {
    DSPARK_RETURN_IF_ERROR(writer.declare(stream_name(layer), DType::kF32, {n, config.dim}));
  }
  DSPARK_RETURN_IF_ERROR(writer.declare("input_ids", DType::kI32, {n}));
  return writer.write_header();
}

Status check_flags(const LogitsFlags& flags, const ModelConfig& config) {
  for (int32_t layer : flags.layers) {
    if (layer < 0 || layer > config.n_layers) {
      return invalid_argument(
          fmt::format("--layers: {} is not a residual stream (0: after the embedding, 1 to {}: "
                      "after that many layers)",
                      layer, config.n_layers));
    }
    if (std::count(flags.layers.begin(), flags.layers.end(), layer) > 1) {
      return invalid_argument(fmt::format("--layers: {} is named twice", layer));
    }
  }
  for (int32_t token : flags.tokens) {
    if (token < 0 || token >= config.vocab_size) {
      return invalid_argument(
          fmt::format("--tokens: {} is not in the vocabulary (0 to {})", token, config.vocab_size - 1));
    }
  }
  return ok_status();
}

// Logits go to the file chunk by chunk; the much smaller rest is kept until the end.
Status write_logits(const LogitsFlags& flags) {
  DSPARK_ASSIGN_OR_RETURN(OpenedModel opened, open_model(flags.model, flags.dtype));
  const ModelConfig& config = opened.model->config();
  DSPARK_RETURN_IF_ERROR(check_flags(flags, config));
  opened.model->set_capture_layers(flags.layers);
  const auto n_tokens = static_cast<int32_t>(flags.tokens.size());
  DSPARK_ASSIGN_OR_RETURN(SequenceRunner runner,
                          SequenceRunner::create(*opened.model, opened.kv_dtype, n_tokens));
  DSPARK_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::create(flags.output));
  DSPARK_RETURN_IF_ERROR(declare_all(writer, flags, config));

  std::vector<float> final_norm;
  std::vector<std::vector<float>> streams(flags.layers.size());
  const std::span<const int32_t> tokens(flags.tokens);
  const auto chunk = static_cast<size_t>(runner.chunk_rows());
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const size_t n = std::min(chunk, tokens.size() - begin);
    DSPARK_ASSIGN_OR_RETURN(const ForwardResult rows, runner.forward(tokens.subspan(begin, n)));
    DSPARK_RETURN_IF_ERROR(writer.append("logits", byte_view(rows.logits)));
    final_norm.insert(final_norm.end(), rows.final_norm.begin(), rows.final_norm.end());
    const size_t stream_size = n * static_cast<size_t>(config.dim);
    for (size_t i = 0; i < streams.size(); ++i) {
      const auto part = rows.captured.subspan(i * stream_size, stream_size);
      streams[i].insert(streams[i].end(), part.begin(), part.end());
    }
  }
  DSPARK_RETURN_IF_ERROR(writer.append("final_norm", byte_view(final_norm)));
  for (size_t i = 0; i < streams.size(); ++i) {
    DSPARK_RETURN_IF_ERROR(writer.append(stream_name(flags.layers[i]), byte_view(streams[i])));
  }
  DSPARK_RETURN_IF_ERROR(writer.append("input_ids", byte_view(flags.tokens)));
  return writer.finish();
}

}  // namespace

void register_logits(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<LogitsFlags>();
  CLI::App* command = app.add_subcommand("logits", "write logits and residual streams to a safetensors file");
  add_model_flags(*command, flags->model);
  command->add_option("--tokens", flags->tokens, "token ids, e.g. 1,2,3 (no BOS is added)")
      ->delimiter(',')
      ->required();
  command->add_option("-o,--output", flags->output, "safetensors file to write")->required();
  command
      ->add_option("--layers", flags->layers,
                   "residual streams to write, e.g. 0,3 (0: after the embedding, n: after n layers)")
      ->delimiter(',');
  command
      ->add_option("--dtype", flags->dtype,
                   "auto: as the model is served; f32: exact float arithmetic and cache")
      ->capture_default_str();
  command->footer(
      "Writes logits [tokens, vocabulary], final_norm [tokens, width] (input of the head), hidden.N [tokens, "
      "width] "
      "for every stream asked for, and input_ids [tokens].");
  command->callback([flags, &exit_code] {
    const Status status = write_logits(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
