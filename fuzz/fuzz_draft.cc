// A drafter of any bytes: a GGUF file, or (input that starts with '{') the config.json of a DeepSpec or
// speculators folder, beside small weights that follow it where they can. An error with a message, or a
// drafter whose tensors lie in the file and fit its configuration.

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "draft/draft_checkpoint.h"
#include "draft/draft_tensors.h"
#include "tensor/quantize.h"

namespace {

namespace fs = std::filesystem;
using dspark::DraftConfig;

/// A folder of this process, in memory where the system has such a place; gone at exit.
class Scratch {
 public:
  Scratch() {
    std::error_code ec;
    const fs::path base = fs::is_directory("/dev/shm", ec) ? fs::path("/dev/shm") : fs::temp_directory_path();
    path_ = base / ("dspark_fuzz_draft_" + std::to_string(::getpid()));
    fs::create_directories(path_ / "folder");
    write_weights();
  }
  ~Scratch() {
    std::error_code ec;
    fs::remove_all(path_, ec);
  }

  std::string file() const { return (path_ / "input.gguf").string(); }
  std::string folder() const { return (path_ / "folder").string(); }
  static void write(const std::string& path, std::string_view bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

 private:
  /// Weights of the drafter that the seeds describe: zeros in the shapes of this configuration.
  void write_weights() const {
    DraftConfig c;
    c.n_layers = c.n_heads = c.n_kv_heads = 1;
    c.dim = 4;
    c.head_dim = 2;
    c.ffn_dim = 4;
    c.vocab_size = 6;
    c.draft_vocab_size = 3;
    c.taps = {1};
    c.head = dspark::SequentialHead::kVanilla;
    c.markov_rank = 2;
    c.confidence = c.confidence_with_markov = true;
    std::string header = "{\"d2t\":{\"dtype\":\"I64\",\"shape\":[3],\"data_offsets\":[0,24]}";
    size_t end = 24;
    for (const dspark::DraftTensor& tensor : dspark::draft_tensors(c)) {
      if (!tensor.required) continue;
      std::string shape;
      size_t n_bytes = 4;
      for (const int64_t d : tensor.shape) {
        shape += (shape.empty() ? "" : ",") + std::to_string(d);
        n_bytes *= static_cast<size_t>(d);
      }
      header += ",\"" + tensor.name + "\":{\"dtype\":\"F32\",\"shape\":[" + shape + "],\"data_offsets\":[" +
                std::to_string(end) + "," + std::to_string(end + n_bytes) + "]}";
      end += n_bytes;
    }
    header += "}";
    const uint64_t length = header.size();
    std::string bytes(sizeof(length), '\0');
    std::memcpy(bytes.data(), &length, sizeof(length));
    write((path_ / "folder" / "model.safetensors").string(), bytes + header + std::string(end, '\0'));
  }

  fs::path path_;
};

void check(const dspark::DraftCheckpoint& draft) {
  const DraftConfig& c = draft.config;
  if (c.n_drafts() < 1 || c.vocab_size < 1 || c.draft_vocab_size > c.vocab_size) std::abort();
  if (!dspark::check_short_block(c, "").ok() || c.n_short_drafts() > c.n_drafts()) std::abort();
  if (c.rope.inv_freq.size() != static_cast<size_t>(c.head_dim / 2)) std::abort();
  if (c.mask_token_id < 0 || c.mask_token_id >= c.vocab_size || c.taps.empty()) std::abort();
  if (c.reduced_vocab() != !c.d2t.empty()) std::abort();
  for (const int32_t id : c.d2t) {
    if (id < 0 || id >= c.vocab_size) std::abort();
  }
  for (size_t i = 1; i < c.taps.size(); ++i) {
    if (c.taps[i] <= c.taps[i - 1]) std::abort();
  }
  for (const dspark::DraftTensor& tensor : dspark::draft_tensors(c)) {
    const dspark::TensorView* view = draft.find(tensor.name);
    if (view == nullptr && tensor.required) std::abort();
    if (view == nullptr || view->n_bytes == 0) continue;
    if (view->shape != tensor.shape) std::abort();
    std::vector<float> row(static_cast<size_t>(view->row_elements()));  // the last row must be readable
    const uint8_t* last = view->data + static_cast<size_t>(view->n_rows() - 1) * view->row_bytes();
    dspark::decode_row(view->dtype, last, row.data(), view->row_elements());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Scratch scratch;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const bool folder = bytes.starts_with("{");
  Scratch::write(folder ? scratch.folder() + "/config.json" : scratch.file(), bytes);
  const auto draft = dspark::open_draft_checkpoint(folder ? scratch.folder() : scratch.file());
  if (draft.ok()) {
    check(*draft);
  } else if (draft.status().message().empty()) {
    std::abort();
  }
  return 0;
}
