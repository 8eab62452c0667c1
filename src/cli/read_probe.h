#pragma once
// How fast this machine reads memory.

#include "base/thread_pool.h"

namespace dspark::cli {

/// Bytes per second that all threads of the pool together read from a buffer far larger than usual caches;
/// the best of some passes. Takes about a quarter of a second. returns: 0 when there is no memory for it.
double measure_read_bandwidth(ThreadPool& pool);

}  // namespace dspark::cli
