#pragma once
// A file that appears under its name only when it is complete.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <utility>

#include "base/status.h"

namespace dspark {

/// Writes to "<path>.tmp-<process id>" beside the target; commit() renames it over `path`. Until then an
/// older file of that name stays as it was; without commit() the destructor removes the temporary file.
class AtomicFile {
 public:
  /// errors: invalid_argument when the folder does not exist or cannot be written.
  static Result<AtomicFile> create(const std::string& path);
  AtomicFile() = default;
  AtomicFile(AtomicFile&& other) noexcept { *this = std::move(other); }
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  const std::string& path() const { return path_; }
  /// Bytes written so far.
  uint64_t size() const { return size_; }
  /// errors: resource_exhausted (disk full and the like).
  Status write(std::span<const uint8_t> bytes);
  /// Appends zeros up to a multiple of `alignment`. requires: alignment > 0.
  Status pad_to(uint64_t alignment);
  /// Brings the bytes to the disk and gives the file its name. Nothing may be written afterwards.
  Status commit();

 private:
  Status failure(const char* action, int error) const;

  std::string path_;
  std::string temporary_;
  std::FILE* file_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace dspark
