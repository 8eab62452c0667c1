#pragma once
// Read-only memory map of a whole file.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"

namespace dspark {

/// Owns a read-only private mapping; views into it are valid while it lives. Movable, not copyable.
/// Empty files map to an empty span. thread: const members from any thread.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

  /// Tells the kernel that [begin, begin+length) has been read for the last time for now, so that it stops
  /// counting towards this process's memory. The bytes stay readable (from the page cache).
  void drop_resident(const void* begin, size_t length) const;

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace dspark
