#pragma once
// Where a trainer's samples come from: a target cache, or a target that computes them when they are needed.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/target_cache.h"

namespace dspark {

/// A numbered set of samples. thread: one thread calls.
class SampleSource {
 public:
  virtual ~SampleSource() = default;

  /// For messages: a folder or file.
  virtual const std::string& name() const = 0;
  virtual const TargetCacheInfo& info() const = 0;
  virtual int64_t n_samples() const = 0;
  /// Ids and masks of sample `idx`. requires: idx in [0, n_samples()).
  virtual void read_tokens(int64_t idx, TargetCacheSample& sample) const = 0;
  /// The same with the features. A sample's numbers are always the same, whatever was read before.
  virtual Status read(int64_t idx, TargetCacheSample& sample) = 0;
  /// Which samples will be read next, in that order; replaces what was said before. A hint.
  virtual void expect(std::span<const int64_t> next) { static_cast<void>(next); }
};

using SampleSources = std::vector<std::unique_ptr<SampleSource>>;

/// Samples of a target cache on disk. errors: those of TargetCacheReader::open.
Result<std::unique_ptr<SampleSource>> open_cache_source(const std::string& folder);

}  // namespace dspark
