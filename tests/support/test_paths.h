#pragma once
// Where tests find their data.

#include <cstdlib>
#include <filesystem>
#include <string>

namespace dspark::test {

/// Fixtures that travel with the repository.
inline std::filesystem::path data_dir() {
  return std::filesystem::path(DSPARK_SOURCE_DIR) / "tests" / "data";
}

/// The full reference set ($DSPARK_GOLDEN, else ../shared/golden beside the clone), or an empty path when
/// absent. Tests run over it when it is there and over data_dir() always.
inline std::filesystem::path golden_dir() {
  namespace fs = std::filesystem;
  const char* env = std::getenv("DSPARK_GOLDEN");
  const fs::path dir =
      env != nullptr ? fs::path(env) : fs::path(DSPARK_SOURCE_DIR) / ".." / "shared" / "golden";
  std::error_code ec;
  return fs::is_directory(dir, ec) ? dir : fs::path();
}

/// A real model file in models/cache ($DSPARK_MODELS overrides), or an empty path when it was not fetched.
inline std::filesystem::path model_file(const std::string& name) {
  namespace fs = std::filesystem;
  const char* env = std::getenv("DSPARK_MODELS");
  const fs::path file =
      (env != nullptr ? fs::path(env) : fs::path(DSPARK_SOURCE_DIR) / "models" / "cache") / name;
  std::error_code ec;
  return fs::is_regular_file(file, ec) ? file : fs::path();
}

}  // namespace dspark::test
