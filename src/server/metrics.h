#pragma once
// Counters and histograms of the server, and the text that Prometheus reads.

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace dspark {

/// A histogram with fixed upper bounds. thread: guarded by its owner.
class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds)
      : bounds_(bounds.begin(), bounds.end()), counts_(bounds.size() + 1) {}
  void observe(double value, int64_t times = 1);
  const std::vector<double>& bounds() const { return bounds_; }
  const std::vector<int64_t>& counts() const { return counts_; }  // per bucket, the last beyond all bounds
  int64_t count() const { return count_; }
  double sum() const { return sum_; }

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;
  int64_t count_ = 0;
  double sum_ = 0.0;
};

/// What the finished and running requests of one model add up to. thread: any.
class RequestMetrics {
 public:
  RequestMetrics();
  void first_token(double seconds);
  /// `tokens` tokens came `seconds` after the ones before.
  void more_tokens(double seconds, int64_t tokens);
  /// An answer came to its end. max_tokens: the most that it was allowed to have.
  void finished(const std::string& reason, double seconds, int64_t max_tokens, const GenerateStats& stats);
  /// All `n` answers to a prompt did; the longest has so many tokens.
  void prompt_finished(int64_t n, int64_t longest);
  /// The engine made a step.
  void stepped(const StepStats& step);

  /// One histogram with the name and the help of its family.
  struct Named {
    std::string name;
    const char* help;
    Histogram histogram;
  };
  struct Snapshot {
    std::vector<Named> histograms;
    std::map<std::string, int64_t> finished;  // by reason
  };
  Snapshot snapshot() const;

 private:
  mutable std::mutex mutex_;
  Histogram ttft_, itl_, tpot_, e2e_, queue_, prefill_, decode_, inference_;
  Histogram prompt_tokens_, output_tokens_, max_tokens_, longest_, n_, step_tokens_;
  std::map<std::string, int64_t> finished_;
};

/// One engine, as its thread last published it.
struct EngineSnapshot {
  EngineStats stats;
  EngineLoad load;
  StepStats last_step;
  double idle_s = 0;                    // the engine's thread had nothing to do
  std::vector<CostPoint> verify_costs;  // empty without a cost model
};

/// Collects lines of Prometheus' text format 0.0.4; HELP and TYPE once per name.
class PrometheusText {
 public:
  using Labels = std::vector<std::pair<std::string_view, std::string>>;
  void add(std::string_view name, const char* type, const char* help, const Labels& labels, double value);
  void add(std::string_view name, const char* help, const Labels& labels, const Histogram& histogram);
  std::string text() const;

 private:
  struct Family {
    std::string name, type, help, lines;
  };
  Family& family(std::string_view name, const char* type, const char* help);
  std::vector<Family> families_;
};

/// Adds one model's numbers, under vLLM's names and with its meanings and labels where those exist.
void add_model_metrics(PrometheusText& out, const std::string& model, const EngineSnapshot& engine,
                       const RequestMetrics::Snapshot& requests);

}  // namespace dspark
