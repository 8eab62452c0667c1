#include "train/sample_source.h"

namespace dspark {
namespace {

class CacheSource final : public SampleSource {
 public:
  CacheSource(std::string folder, TargetCacheReader cache)
      : folder_(std::move(folder)), cache_(std::move(cache)) {}

  const std::string& name() const override { return folder_; }
  const TargetCacheInfo& info() const override { return cache_.info(); }
  int64_t n_samples() const override { return cache_.n_samples(); }
  void read_tokens(int64_t idx, TargetCacheSample& sample) const override { cache_.read_tokens(idx, sample); }
  Status read(int64_t idx, TargetCacheSample& sample) override {
    cache_.read(idx, sample);
    return ok_status();
  }

 private:
  std::string folder_;
  TargetCacheReader cache_;
};

}  // namespace

Result<std::unique_ptr<SampleSource>> open_cache_source(const std::string& folder) {
  DSPARK_ASSIGN_OR_RETURN(TargetCacheReader cache, TargetCacheReader::open(folder));
  return std::unique_ptr<SampleSource>(new CacheSource(folder, std::move(cache)));
}

}  // namespace dspark
