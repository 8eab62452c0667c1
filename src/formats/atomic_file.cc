#include "formats/atomic_file.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace dspark {

Result<AtomicFile> AtomicFile::create(const std::string& path) {
  AtomicFile out;
  out.path_ = path;
  out.temporary_ = path + ".tmp-" + std::to_string(::getpid());
  out.file_ = std::fopen(out.temporary_.c_str(), "wbe");
  if (out.file_ == nullptr) {
    return invalid_argument(path + ": cannot create: " + std::strerror(errno));
  }
  return out;
}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(temporary_, other.temporary_);
  std::swap(file_, other.file_);
  std::swap(size_, other.size_);
  return *this;
}

AtomicFile::~AtomicFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(temporary_.c_str());
}

Status AtomicFile::failure(const char* action, int error) const {
  return resource_exhausted(path_ + ": cannot " + action + ": " + std::strerror(error));
}

Status AtomicFile::write(std::span<const uint8_t> bytes) {
  if (file_ == nullptr) return internal_error(path_ + ": written to after commit");
  if (!bytes.empty() && std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) {
    return failure("write", errno);
  }
  size_ += bytes.size();
  return {};
}

Status AtomicFile::pad_to(uint64_t alignment) {
  constexpr std::array<uint8_t, 4096> kZeros{};
  uint64_t missing = (alignment - size_ % alignment) % alignment;
  while (missing > 0) {
    const size_t n = std::min<uint64_t>(missing, kZeros.size());
    DSPARK_RETURN_IF_ERROR(write(std::span(kZeros).first(n)));
    missing -= n;
  }
  return {};
}

Status AtomicFile::commit() {
  if (file_ == nullptr) return internal_error(path_ + ": committed twice");
  // The rename must not reach the disk before the bytes do.
  const bool flushed = std::fflush(file_) == 0 && ::fsync(::fileno(file_)) == 0;
  const int flush_error = errno;
  const bool closed = std::fclose(std::exchange(file_, nullptr)) == 0;
  const int close_error = errno;
  if (flushed && closed && std::rename(temporary_.c_str(), path_.c_str()) == 0) return {};
  const int error = !flushed ? flush_error : !closed ? close_error : errno;
  std::remove(temporary_.c_str());
  return failure("finish", error);
}

}  // namespace dspark
