#include "draft/factory.h"

#include <charconv>
#include <string>

#include "draft/ngram.h"

namespace dspark {
namespace {

/// Reads a whole decimal number; false when anything else is there.
bool parse_number(std::string_view text, int32_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

Result<std::unique_ptr<Drafter>> make_drafter(std::string_view spec,
                                              [[maybe_unused]] const DrafterContext& context) {
  if (spec.empty() || spec == "none") return std::unique_ptr<Drafter>();
  const size_t colon = spec.find(':');
  const std::string_view name = spec.substr(0, colon);
  if (name != "ngram") {
    return invalid_argument("drafter: want none, ngram, ngram:MAX or ngram:MIN-MAX, found '" +
                            std::string(spec) + "'");
  }
  NgramOptions options;
  if (colon != std::string_view::npos) {
    const std::string_view lengths = spec.substr(colon + 1);
    const size_t dash = lengths.find('-');
    const bool read = dash == std::string_view::npos
                          ? parse_number(lengths, options.max_n)
                          : parse_number(lengths.substr(0, dash), options.min_n) &&
                                parse_number(lengths.substr(dash + 1), options.max_n);
    if (!read) {
      return invalid_argument("drafter: want ngram:MAX or ngram:MIN-MAX, found '" + std::string(spec) + "'");
    }
  }
  DSPARK_RETURN_IF_ERROR(options.validate());
  return std::unique_ptr<Drafter>(std::make_unique<NgramDrafter>(options));
}

}  // namespace dspark
