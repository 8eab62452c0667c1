#pragma once
// The order of requests: clients take turns, priorities move requests ahead, waiting makes up for it.

#include <cstdint>
#include <map>
#include <string>

namespace dspark {

/// A place in the order; lower is earlier. It never changes while the request lives, so that of two requests
/// one is senior for good: that is what keeps preemption from going round in circles.
struct QueueRank {
  int64_t score = 0;
  uint64_t id = 0;  // of the request: earlier submissions first
  friend bool operator<(const QueueRank& a, const QueueRank& b) {
    return a.score != b.score ? a.score < b.score : a.id < b.id;
  }
};

/// Gives out ranks. score = 16 * turn + starts - 256 * priority, where `turn` counts how many requests of the
/// same client come before this one since the turn at which the queue stands, and `starts` how many requests
/// had started when it came. So clients with many requests and clients with one alternate; a level of
/// priority is worth 16 turns; and since `starts` grows with every request that starts, none can be overtaken
/// for ever. thread: the engine thread.
class FairQueue {
 public:
  static constexpr int64_t kPerTurn = 16, kPerStart = 1, kPerPriority = 256;

  /// The rank of a new request, and its turn, which started() wants back.
  struct Ticket {
    QueueRank rank;
    int64_t turn = 0;
  };
  Ticket enqueue(const std::string& client, int32_t priority, uint64_t id);
  /// A request left the queue to run.
  void started(const std::string& client, int64_t turn);
  /// A request left the queue without having run.
  void left(const std::string& client);
  /// Clients that are remembered; for tests.
  size_t n_clients() const { return clients_.size(); }

 private:
  struct Client {
    int64_t next_turn = 0;
    int64_t n_waiting = 0;
  };
  void forget_idle_clients();

  static constexpr size_t kLeastClients = 1024;
  std::map<std::string, Client> clients_;  // those with requests waiting or a turn ahead of the queue's
  size_t most_clients_ = kLeastClients;    // more are looked through for some to forget
  int64_t now_ = 0;                        // latest turn that started
  int64_t n_started_ = 0;
};

}  // namespace dspark
