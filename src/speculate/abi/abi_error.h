#pragma once
// From Status to what crosses the C interface. Nothing here or behind it throws across.

#include <cmath>
#include <cstdio>
#include <new>
#include <string>

#include "base/status.h"
#include "dspark/scheduler.h"

namespace dspark::abi {

inline dspark_sched_status fail(dspark_sched_error* error, dspark_sched_status status, const char* message) {
  if (error != nullptr) {
    error->status = status;
    std::snprintf(error->message, sizeof(error->message), "%s", message);
  }
  return status;
}

inline dspark_sched_status fail(dspark_sched_error* error, const Status& status) {
  switch (status.code()) {
    case StatusCode::kOk:
      return DSPARK_SCHED_OK;
    case StatusCode::kInvalidArgument:
      return fail(error, DSPARK_SCHED_INVALID_ARGUMENT, status.message().c_str());
    case StatusCode::kOutOfMemory:
      return fail(error, DSPARK_SCHED_OUT_OF_MEMORY, status.message().c_str());
    case StatusCode::kResourceExhausted:
      return fail(error, DSPARK_SCHED_RESOURCE_EXHAUSTED, status.message().c_str());
    default:
      return fail(error, DSPARK_SCHED_INTERNAL, status.message().c_str());
  }
}

/// Runs `body`, which returns a Status; what it throws becomes a status too.
template <typename Body>
dspark_sched_status guarded(dspark_sched_error* error, Body&& body) {
  try {
    return fail(error, body());
  } catch (const std::bad_alloc&) {
    return fail(error, DSPARK_SCHED_OUT_OF_MEMORY, "no memory");
  } catch (...) {
    return fail(error, DSPARK_SCHED_INTERNAL, "unexpected exception");
  }
}

inline Status want(const char* field, const std::string& wanted, const std::string& found) {
  return invalid_argument(std::string(field) + ": want " + wanted + ", found " + found);
}

/// A pointer that must not be null when there is something behind it.
inline Status check_pointer(const char* field, const void* pointer, bool needed = true) {
  return pointer != nullptr || !needed ? ok_status() : want(field, "an array", "NULL");
}

inline Status check_range(const char* field, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return ok_status();
  return want(field, std::to_string(least) + " to " + std::to_string(most), std::to_string(value));
}

/// Dimensions of a batch and the counts in it.
inline Status check_batch(const int32_t* n_drafts, int32_t n_sequences, int32_t stride) {
  DSPARK_RETURN_IF_ERROR(check_range("n_sequences", n_sequences, 0, 65536));
  DSPARK_RETURN_IF_ERROR(check_range("stride", stride, 0, DSPARK_SCHED_MAX_DRAFTS));
  DSPARK_RETURN_IF_ERROR(check_pointer("n_drafts", n_drafts, n_sequences > 0));
  for (int32_t i = 0; i < n_sequences; ++i) {
    if (n_drafts[i] >= 0 && n_drafts[i] <= stride) continue;
    const std::string field = "n_drafts[" + std::to_string(i) + "]";
    return check_range(field.c_str(), n_drafts[i], 0, stride);
  }
  return ok_status();
}

/// Entry (i, j) of a list of probabilities.
inline Status check_probability(const char* list, int32_t i, int32_t j, double value) {
  if (value >= 0.0 && value <= 1.0) return ok_status();
  return invalid_argument(std::string(list) + "[" + std::to_string(i) + "][" + std::to_string(j) +
                          "]: want 0 to 1, found " + std::to_string(value));
}

}  // namespace dspark::abi
