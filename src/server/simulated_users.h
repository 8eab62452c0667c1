#pragma once
// Users that the page can start to see the scheduler under load: each asks, reads, and asks again.

#include <cstdint>
#include <memory>

namespace dspark {

class ModelHost;  // server/model_host.h

inline constexpr int kMaxSimulatedUsers = 64;

/// thread: any. Requests of theirs count in the metrics of the engine as all others do.
class SimulatedUsers {
 public:
  /// requires: `model` outlives every request of theirs (ModelHost::stop waits for them).
  explicit SimulatedUsers(ModelHost& model);
  ~SimulatedUsers();

  /// From now on n of them, at most kMaxSimulatedUsers; those that are too many end with their answer.
  void set(int n);
  int n() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace dspark
