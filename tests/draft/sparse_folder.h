#pragma once
// A model folder with a true header and no data: config.json, and a weights file that is one hole.

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/model_shapes.h"
#include "support/test_paths.h"

namespace dspark::test {

/// A tensor of a header. `dtype`: as safetensors spells it.
struct HeaderTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t n_elements() const { return ExpectedTensor{name, shape}.n_elements(); }
  int64_t n_bytes() const {
    const bool one = dtype.starts_with("F8") || dtype == "I8";
    return n_elements() * (one ? 1 : dtype == "BF16" ? 2 : dtype == "F32" ? 4 : 8);
  }
};

inline std::vector<HeaderTensor> in_bf16(const std::vector<ExpectedTensor>& tensors) {
  std::vector<HeaderTensor> out;
  for (const ExpectedTensor& tensor : tensors) {
    out.push_back({tensor.name, tensor.name.ends_with("tid2eid") ? "I64" : "BF16", tensor.shape});
  }
  return out;
}

class SparseFolder {
 public:
  /// `config`: a folder of tests/data/plan.
  SparseFolder(const std::string& config, const std::vector<HeaderTensor>& tensors) {
    std::string pattern = (std::filesystem::temp_directory_path() / "dspark-plan-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
    std::filesystem::copy_file(data_dir() / "plan" / config / "config.json", path_ / "config.json");
    nlohmann::json header = nlohmann::json::object();
    int64_t end = 0;
    for (const HeaderTensor& tensor : tensors) {
      const int64_t begin = end;
      end += tensor.n_bytes();
      header[tensor.name] = {
          {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
    }
    std::string text = header.dump();
    while (text.size() % 8 != 0) text += ' ';
    const uint64_t size = text.size();
    const std::filesystem::path file = path_ / "model.safetensors";
    std::ofstream(file, std::ios::binary)
        << std::string(reinterpret_cast<const char*>(&size), sizeof size) << text;
    std::filesystem::resize_file(file, sizeof size + size + static_cast<uint64_t>(end));
  }
  ~SparseFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  SparseFolder(const SparseFolder&) = delete;
  SparseFolder& operator=(const SparseFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace dspark::test
