#include "engine/fair_queue.h"

#include <algorithm>

namespace dspark {

FairQueue::Ticket FairQueue::enqueue(const std::string& client, int32_t priority, uint64_t id) {
  if (clients_.size() >= most_clients_) forget_idle_clients();
  Client& state = clients_[client];
  const int64_t turn = std::max(now_, state.next_turn);
  state.next_turn = turn + 1;
  ++state.n_waiting;
  return {{kPerTurn * turn + kPerStart * n_started_ - kPerPriority * priority, id}, turn};
}

void FairQueue::started(const std::string& client, int64_t turn) {
  now_ = std::max(now_, turn);
  ++n_started_;
  --clients_[client].n_waiting;
}

// Requests behind one that went away keep their turns; the client's next request takes the last of them.
void FairQueue::left(const std::string& client) {
  Client& state = clients_[client];
  --state.n_waiting;
  --state.next_turn;
}

// A client without requests whose turn is not ahead of the queue's is like one never seen. Clients that come
// once each do not move the turn; then it is moved here.
void FairQueue::forget_idle_clients() {
  const auto is_idle = [this](const auto& client) {
    return client.second.n_waiting == 0 && client.second.next_turn <= now_;
  };
  if (std::erase_if(clients_, is_idle) < most_clients_ / 2) {
    ++now_;
    std::erase_if(clients_, is_idle);
  }
  most_clients_ = std::max(kLeastClients, 2 * clients_.size());
}

}  // namespace dspark
