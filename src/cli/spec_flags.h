#pragma once
// Options of speculation, shared by the commands that generate.

#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "engine/loader.h"

namespace CLI {
class App;
}

namespace dspark::cli {

/// -d, --hybrid, --spec, --accept, --calibration, --shortlist, --cost-table.
struct SpecFlags {
  std::string drafter = "none";
  bool hybrid = true;     // a learned drafter is joined with prompt lookup
  std::string spec = {};  // empty: default_policy() of the drafter
  std::string accept = "coupled";
  std::string calibration = {};
  int32_t shortlist = 0;
  std::string cost_table = "auto";  // a file, "none" or "auto"
  std::optional<float> temperature =
      {};  // not a flag: what requests will sample with, to choose and check a calibration
};

void add_spec_flags(CLI::App& command, SpecFlags& flags);
/// All but -d.
void add_policy_flags(CLI::App& command, SpecFlags& flags);

/// What the flags say before a model is loaded.
struct SpecChoice {
  std::optional<VerifyPolicy> policy;  // nothing: default_policy() of the drafter
  AcceptRule rule = AcceptRule::kCoupled;
};

/// errors: invalid_argument naming the flag: an unknown word, a drafter that is neither a name nor a file, a
/// policy that drafts without a drafter.
Result<SpecChoice> check_spec(const SpecFlags& flags);

/// An engine that speculates as the flags say; `options` brings everything else and gets rule and policy.
Result<std::unique_ptr<Engine>> make_spec_engine(LoadedModel& loaded, EngineOptions& options,
                                                 const SpecFlags& flags);

/// "none", or how the drafter calls itself.
std::string drafter_name(const Engine& engine);

}  // namespace dspark::cli
