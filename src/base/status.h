#pragma once
// Errors as values: Status and Result<T> (in the style of C++23 std::expected, which GCC 12 lacks in C++20).
//
// Rule of the project: files, flags, requests and the C ABI return a Status/Result; inner arithmetic asserts
// (DSPARK_DCHECK). A message names the place (file, tensor, field, flag), what was expected and what was
// found.

#include <cassert>
#include <string>
#include <utility>
#include <variant>

namespace dspark {

enum class StatusCode {
  kOk = 0,
  kInvalidArgument,    // the caller's input is wrong (HTTP 400)
  kNotFound,           // file, tensor, key, model does not exist (404)
  kUnsupported,        // well-formed, but this build does not do it (501)
  kCorruptData,        // bytes of a file or message contradict their format (400)
  kOutOfMemory,        // an allocation failed (500)
  kResourceExhausted,  // a limit is reached: pages, queue, context length (429/503)
  kCancelled,          // the user or client went away (499)
  kInternal,           // a bug in dspark (500)
};

/// Lower-case name of a code, e.g. "corrupt data".
const char* status_code_name(StatusCode code);

/// Success, or a code with one human-readable message. Cheap to move; success allocates nothing.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  /// "corrupt data: model.gguf: ..." for logs and the command line.
  std::string to_string() const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status ok_status() {
  return {};
}
inline Status invalid_argument(std::string m) {
  return {StatusCode::kInvalidArgument, std::move(m)};
}
inline Status not_found(std::string m) {
  return {StatusCode::kNotFound, std::move(m)};
}
inline Status unsupported(std::string m) {
  return {StatusCode::kUnsupported, std::move(m)};
}
inline Status corrupt_data(std::string m) {
  return {StatusCode::kCorruptData, std::move(m)};
}
inline Status out_of_memory(std::string m) {
  return {StatusCode::kOutOfMemory, std::move(m)};
}
inline Status resource_exhausted(std::string m) {
  return {StatusCode::kResourceExhausted, std::move(m)};
}
inline Status cancelled(std::string m) {
  return {StatusCode::kCancelled, std::move(m)};
}
inline Status internal_error(std::string m) {
  return {StatusCode::kInternal, std::move(m)};
}

/// A value or an error Status. requires: value() only when ok(), status() always.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Status error) : state_(std::in_place_index<1>, std::move(error)) {
    assert(!std::get<1>(state_).ok() && "a Result must not be built from an ok Status");
  }
  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  Status status() const { return ok() ? Status() : std::get<1>(state_); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace dspark

#define DSPARK_CONCAT_INNER(a, b) a##b
#define DSPARK_CONCAT(a, b) DSPARK_CONCAT_INNER(a, b)

/// Leaves the enclosing function with the error of `expr` (a Status), if it is one.
#define DSPARK_RETURN_IF_ERROR(expr)                          \
  do {                                                        \
    if (::dspark::Status st_ = (expr); !st_.ok()) return st_; \
  } while (0)

/// DSPARK_ASSIGN_OR_RETURN(auto file, MappedFile::open(path)): declares or assigns, or leaves with the error.
#define DSPARK_ASSIGN_OR_RETURN(lhs, expr) \
  DSPARK_ASSIGN_OR_RETURN_IMPL(DSPARK_CONCAT(res_, __LINE__), lhs, expr)
#define DSPARK_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return tmp.status();                \
  lhs = std::move(tmp).value()

/// Programming errors only, never reachable from user input; compiled out with NDEBUG.
#define DSPARK_DCHECK(cond) assert(cond)
