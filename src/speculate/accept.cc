#include "speculate/accept.h"

#include <string>

namespace dspark {

std::string_view accept_rule_name(AcceptRule rule) {
  switch (rule) {
    case AcceptRule::kCoupled:
      return "coupled";
    case AcceptRule::kRejection:
      return "rejection";
    case AcceptRule::kBlock:
      return "block";
  }
  return "?";
}

Result<AcceptRule> parse_accept_rule(std::string_view text) {
  for (AcceptRule rule : {AcceptRule::kCoupled, AcceptRule::kRejection, AcceptRule::kBlock}) {
    if (text == accept_rule_name(rule)) return rule;
  }
  return invalid_argument("accept rule: want coupled, rejection or block, found '" + std::string(text) + "'");
}

}  // namespace dspark
