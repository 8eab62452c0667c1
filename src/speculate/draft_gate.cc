#include "speculate/draft_gate.h"

#include <algorithm>
#include <bit>

namespace dspark {

int32_t DraftGate::load_of(int32_t n_sequences) {
  const auto above = static_cast<uint32_t>(std::max(n_sequences, 1) - 1);
  return std::min(static_cast<int32_t>(std::bit_width(above)), kLoads - 1);
}

void DraftGate::start(int32_t load, double credit) {
  Account& account = at(load);
  account = {};
  account.credit = std::min(credit, kMostCredit);
  account.seen = true;
}

bool DraftGate::open(int32_t load, double risk) {
  Account& account = at(load);
  account.credit = std::min(account.credit + kIncome, std::max(kMostCredit, account.credit));
  // A step that could lose more than an account ever holds must still be tried some time.
  const double needed = std::min(risk, 0.5 * kMostCredit);
  if (account.credit >= needed) {
    account.waited = 0;
    return true;
  }
  if (account.reserve < kLoan || ++account.waited < account.pause) return false;
  account.waited = 0;
  account.pause = std::min(2 * account.pause, kLongestPause);
  account.reserve -= kLoan;
  account.credit += kLoan;
  return account.credit >= needed;
}

void DraftGate::settle(int32_t load, double gain) {
  Account& account = at(load);
  account.credit += gain - kMinGain;
  if (account.credit <= kMostCredit) return;
  account.reserve = std::min(account.reserve + account.credit - kMostCredit, kMostReserve);
  account.credit = kMostCredit;
  account.pause = kFirstPause;
}

}  // namespace dspark
