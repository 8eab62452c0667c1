#pragma once
// Says how many reference cases a test ran: a clone without the full set runs fewer, and should show it.

#include <gtest/gtest.h>

#include <iostream>
#include <string>

namespace dspark::test {

/// One line in the test's output, and a property of the running test in its XML report.
inline void report_cases(const std::string& what, size_t n_cases) {
  std::cout << "[    CASES ] " << what << ": " << n_cases << std::endl;
  testing::Test::RecordProperty("cases_" + what, std::to_string(n_cases));
}

}  // namespace dspark::test
