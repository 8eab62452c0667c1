#pragma once
// What `dspark bench load` prints and writes.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/load_sweep.h"

namespace dspark::cli {

/// Tables for a terminal: per load a line for each policy with speeds and latencies and one with what became
/// of the drafts, then texts and verdicts.
std::string load_report_text(const LoadReport& report);
/// Everything, seconds as they were measured.
nlohmann::ordered_json load_report_json(const LoadReport& report);
/// The members of a cost table.
nlohmann::ordered_json cost_table_json(const CostTable& table);

/// Writes pareto.svg (total tokens/s against tokens/s of one user, one line per policy), latency.svg (share
/// of tokens within a time, at the highest load) and, for bursts, one burst-POLICY.svg each (clients and the
/// budget in drafts per step over time) into `folder`, which is made when it does not exist. errors: those of
/// writing.
Status write_load_plots(const std::string& folder, const LoadReport& report);

}  // namespace dspark::cli
