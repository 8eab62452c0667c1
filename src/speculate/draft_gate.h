#pragma once
// Whether drafting pays at the present load: an account of what it won and lost, so that a drafter that does
// not help costs a known, small share of the time.

#include <array>
#include <cstddef>
#include <cstdint>

namespace dspark {

/// Accounts in units of one step without drafts, one account for every load (number of decoding sequences, in
/// powers of two): a verdict at 16 sequences says nothing about one. A step may draft when the account can
/// bear the whole loss of a drafting step that gets nothing accepted. Drafting steps add what they won, or
/// take what they lost; every step adds a small income, which pays for looks at a drafter that has been
/// failing.
///
/// So the time lost to a useless drafter never exceeds start credit + kIncome * steps (in steps), and a look
/// comes every risk / kIncome steps. What a good drafter won beyond the account's limit goes to a reserve
/// that pays for further tries after a bad stretch, after pauses that double.
class DraftGate {
 public:
  static constexpr int32_t kLoads = 12;          // 1, 2, 3-4, 5-8, ..., more than 1024
  static constexpr double kStartCredit = 1.6;    // for a drafter nobody knows
  static constexpr double kTrustedCredit = 4.0;  // for one with a record
  static constexpr double kIncome = 0.004;       // per step
  static constexpr double kMostCredit = 16.0;
  static constexpr double kMostReserve = 32.0;
  static constexpr double kLoan = 4.0;      // moved from the reserve at a time
  static constexpr double kMinGain = 0.01;  // what a drafting step must win to leave the account as it is
  static constexpr int32_t kFirstPause = 8, kLongestPause = 64;  // steps before a loan

  static int32_t load_of(int32_t n_sequences);

  /// A load that was never seen starts with `credit`.
  bool is_new(int32_t load) const { return !at(load).seen; }
  void start(int32_t load, double credit);

  /// One step begins. risk: what it loses when it drafts and nothing is accepted, in steps without drafts.
  /// returns: whether it may draft.
  bool open(int32_t load, double risk);
  /// A step drafted: time without drafts for the same tokens minus its time, in steps without drafts.
  void settle(int32_t load, double gain);

  double credit(int32_t load) const { return at(load).credit; }

 private:
  struct Account {
    double credit = 0.0;
    double reserve = 0.0;
    int32_t pause = kFirstPause;  // steps the next loan is waited for
    int32_t waited = 0;
    bool seen = false;
  };
  const Account& at(int32_t load) const { return accounts_[static_cast<size_t>(load)]; }
  Account& at(int32_t load) { return accounts_[static_cast<size_t>(load)]; }

  std::array<Account, kLoads> accounts_{};
};

}  // namespace dspark
