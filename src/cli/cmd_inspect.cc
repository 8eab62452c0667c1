// dspark inspect: what a model file or folder says about itself.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "cli/commands.h"
#include "cli/drafter_summary.h"
#include "cli/report.h"
#include "formats/checkpoint.h"
#include "formats/gguf_reader.h"

namespace dspark::cli {
namespace {

using nlohmann::ordered_json;

constexpr size_t kShownElements = 4;    // of a metadata array
constexpr size_t kShownTextBytes = 72;  // of a metadata string

struct InspectOptions {
  std::string path;
  bool json = false;
  bool full = false;  // nothing abridged
};

/// Tensors and bytes of one element type.
struct TypeTotal {
  size_t n_tensors = 0;
  int64_t n_elements = 0;
  size_t n_bytes = 0;
};

std::map<std::string, TypeTotal> totals_per_type(const Checkpoint& checkpoint) {
  std::map<std::string, TypeTotal> totals;
  for (const TensorView& tensor : checkpoint.tensors()) {
    TypeTotal& total = totals[dtype_name(tensor.dtype)];
    ++total.n_tensors;
    total.n_elements += tensor.n_elements();
    total.n_bytes += tensor.n_bytes;
  }
  return totals;
}

const char* format_name(const Checkpoint& checkpoint) {
  return checkpoint.format() == Checkpoint::Format::kGguf ? "GGUF" : "safetensors";
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += fmt::format("{}{}", i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

std::string size_text(size_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= size_t{1} << 30) return fmt::format("{:.2f} GiB", value / (1 << 30));
  if (bytes >= size_t{1} << 20) return fmt::format("{:.1f} MiB", value / (1 << 20));
  if (bytes >= size_t{1} << 10) return fmt::format("{:.1f} KiB", value / (1 << 10));
  return fmt::format("{} B", bytes);
}

/// JSON text on one line; bytes that are not UTF-8 are replaced, so it never throws.
std::string dump(const ordered_json& value, int indent = -1) {
  return value.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

/// A string as JSON, cut at `limit` bytes but never inside a UTF-8 character.
std::string text_value(const std::string& text, size_t limit) {
  if (text.size() <= limit) return dump(text);
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return dump(text.substr(0, end)) + fmt::format("... ({} bytes)", text.size());
}

/// A key or tensor name as it stands, or as a JSON string when a terminal should not get its bytes.
std::string name_text(std::string_view name) {
  const std::string quoted = dump(std::string(name));
  return quoted.size() == name.size() + 2 && quoted.find('\\') == std::string::npos ? std::string(name)
                                                                                    : quoted;
}

template <typename T>
constexpr bool kIsArray = false;
template <typename T>
constexpr bool kIsArray<std::vector<T>> = true;

/// One element or scalar as text.
template <typename T>
std::string element_text(const T& value, size_t limit) {
  if constexpr (std::is_same_v<T, std::string>) {
    return text_value(value, limit);
  } else if constexpr (std::is_same_v<T, double>) {
    // Most came from a 32-bit float: 1e-06 instead of 9.999999974752427e-07.
    const auto narrow = static_cast<float>(value);
    return static_cast<double>(narrow) == value ? fmt::format("{}", narrow) : fmt::format("{}", value);
  } else {
    return dump(ordered_json(value));
  }
}

std::string value_text(const MetaValue& meta, bool full) {
  const size_t limit = full ? static_cast<size_t>(-1) : kShownTextBytes;
  return std::visit(
      [&](const auto& value) -> std::string {
        using T = std::decay_t<decltype(value)>;
        if constexpr (!kIsArray<T>) {
          return element_text(value, limit);
        } else {
          const size_t shown = full ? value.size() : std::min(kShownElements, value.size());
          std::string text = "[";
          for (size_t i = 0; i < shown; ++i) {
            const typename T::value_type element = value[i];
            text += (i == 0 ? "" : ", ") + element_text(element, limit);
          }
          if (shown < value.size()) text += fmt::format(", ... {} in all", value.size());
          return text + "]";
        }
      },
      meta);
}

/// Long arrays become {"length": n, "first": [...]} unless `full`.
ordered_json value_json(const MetaValue& meta, bool full) {
  return std::visit(
      [&](const auto& value) -> ordered_json {
        using T = std::decay_t<decltype(value)>;
        if constexpr (kIsArray<T>) {
          if (!full && value.size() > kShownElements) {
            return {{"length", value.size()}, {"first", T(value.begin(), value.begin() + kShownElements)}};
          }
        }
        return value;
      },
      meta);
}

/// GGUF type of a raw value: "u32", "array of string".
std::string raw_type_text(const RawMeta& raw) {
  if (raw.type != static_cast<uint32_t>(GgufType::kArray)) return gguf_type_name(raw.type);
  uint32_t element = 0;
  std::memcpy(&element, raw.value.data(), sizeof(element));
  return fmt::format("{}[]", gguf_type_name(element));
}

void print_config(const char* title, const nlohmann::json& config) {
  if (config.is_null()) return;
  fmt::print("\n{}\n{}\n", title, config.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_metadata(const Checkpoint& checkpoint, bool full) {
  if (checkpoint.metadata().empty()) return;
  fmt::print("\nmetadata ({} keys)\n", checkpoint.metadata().size());
  if (checkpoint.format() == Checkpoint::Format::kGguf) {
    for (const RawMeta& raw : checkpoint.raw_metadata()) {
      fmt::print("  {:<8} {} = {}\n", raw_type_text(raw), name_text(raw.key),
                 value_text(*checkpoint.meta(raw.key), full));
    }
    return;
  }
  for (const auto& [key, value] : checkpoint.metadata())
    fmt::print("  {} = {}\n", name_text(key), value_text(value, full));
}

void print_tensors(const Checkpoint& checkpoint) {
  size_t name_width = 4;
  size_t shape_width = 5;
  for (const TensorView& tensor : checkpoint.tensors()) {
    name_width = std::max(name_width, name_text(tensor.name).size());
    shape_width = std::max(shape_width, shape_text(tensor.shape).size());
  }
  fmt::print("\ntensors ({})\n  {:<{}}  {:<8}  {:<{}}  {:>13}\n", checkpoint.tensors().size(), "name",
             name_width, "type", "shape", shape_width, "bytes");
  for (const TensorView& tensor : checkpoint.tensors()) {
    fmt::print("  {:<{}}  {:<8}  {:<{}}  {:>13}\n", name_text(tensor.name), name_width,
               dtype_name(tensor.dtype), shape_text(tensor.shape), shape_width, tensor.n_bytes);
  }
}

void print_totals(const Checkpoint& checkpoint) {
  fmt::print("\ntotals\n  {:<8}  {:>7}  {:>15}  {:>15}\n", "type", "tensors", "elements", "bytes");
  int64_t elements = 0;
  for (const auto& [type, total] : totals_per_type(checkpoint)) {
    fmt::print("  {:<8}  {:>7}  {:>15}  {:>15}\n", type, total.n_tensors, total.n_elements, total.n_bytes);
    elements += total.n_elements;
  }
  fmt::print("  {:<8}  {:>7}  {:>15}  {:>15}  ({})\n", "all", checkpoint.tensors().size(), elements,
             checkpoint.tensor_bytes(), size_text(checkpoint.tensor_bytes()));
}

ordered_json to_json(const Checkpoint& checkpoint, bool full) {
  ordered_json out = {{"path", checkpoint.path()}, {"format", format_name(checkpoint)}};
  ordered_json& metadata = out["metadata"] = ordered_json::object();
  for (const RawMeta& raw : checkpoint.raw_metadata()) {
    metadata[std::string(raw.key)] = value_json(*checkpoint.meta(raw.key), full);
  }
  for (const auto& [key, value] : checkpoint.metadata()) {
    if (!metadata.contains(key)) metadata[key] = value_json(value, full);
  }
  if (!checkpoint.config().is_null()) out["config"] = checkpoint.config();
  if (!checkpoint.generation_config().is_null()) out["generation_config"] = checkpoint.generation_config();
  ordered_json& tensors = out["tensors"] = ordered_json::array();
  for (const TensorView& tensor : checkpoint.tensors()) {
    tensors.push_back({{"name", tensor.name},
                       {"type", dtype_name(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.n_bytes}});
  }
  ordered_json& totals = out["totals"] = ordered_json::object();
  for (const auto& [type, total] : totals_per_type(checkpoint)) {
    totals[type] = {{"tensors", total.n_tensors}, {"elements", total.n_elements}, {"bytes", total.n_bytes}};
  }
  out["bytes"] = checkpoint.tensor_bytes();
  return out;
}

/// What a drafter says about itself. One that cannot be used is still shown, with the reason.
void print_drafter(const std::shared_ptr<const Checkpoint>& checkpoint) {
  if (!is_draft_checkpoint(*checkpoint)) return;
  const auto draft = read_draft_checkpoint(checkpoint);
  if (draft.ok()) {
    fmt::print("\n{}", drafter_text(*draft));
  } else {
    fmt::print("\ndrafter\n  cannot be used: {}\n", draft.status().message());
  }
}

void add_drafter(const std::shared_ptr<const Checkpoint>& checkpoint, ordered_json& out) {
  if (!is_draft_checkpoint(*checkpoint)) return;
  const auto draft = read_draft_checkpoint(checkpoint);
  out["drafter"] = draft.ok() ? drafter_json(*draft) : ordered_json{{"error", draft.status().message()}};
}

int inspect(const InspectOptions& options) {
  auto opened = Checkpoint::open(options.path);
  if (!opened.ok()) return report_failure(opened.status());
  const auto checkpoint = std::make_shared<const Checkpoint>(*std::move(opened));
  if (options.json) {
    ordered_json out = to_json(*checkpoint, options.full);
    add_drafter(checkpoint, out);
    fmt::print("{}\n", dump(out, 2));
    return 0;
  }
  fmt::print("{}: {}, {} tensors, {}\n", checkpoint->path(), format_name(*checkpoint),
             checkpoint->tensors().size(), size_text(checkpoint->tensor_bytes()));
  print_drafter(checkpoint);
  print_config("config.json", checkpoint->config());
  print_config("generation_config.json", checkpoint->generation_config());
  print_metadata(*checkpoint, options.full);
  print_tensors(*checkpoint);
  print_totals(*checkpoint);
  return 0;
}

}  // namespace

void register_inspect(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command =
      app.add_subcommand("inspect", "Show the metadata and tensors of a model file or folder");
  command->add_option("path", options->path, "a .gguf or .safetensors file, or a Hugging Face model folder")
      ->type_name("FILE|DIR")
      ->required();
  command->add_flag("--json", options->json, "print one JSON object");
  command->add_flag("--full", options->full, "print long arrays and strings whole");
  command->callback([options, &exit_code] { exit_code = inspect(*options); });
}

}  // namespace dspark::cli
