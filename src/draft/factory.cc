#include "draft/factory.h"

#include <charconv>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "draft/block_drafter.h"
#include "draft/draft_checkpoint.h"
#include "draft/draft_weights.h"
#include "draft/hybrid_drafter.h"
#include "draft/ngram.h"
#include "draft/paired_drafter.h"
#include "draft/random_weights.h"
#include "draft/target_match.h"
#include "draft/v4_drafter.h"

namespace dspark {
namespace {

/// Reads a whole decimal number; false when anything else is there.
bool parse_number(std::string_view text, int32_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// "ngram", "ngram:MAX" or "ngram:MIN-MAX"; lengths that are not named stay those of `options`.
Result<NgramOptions> parse_ngram(std::string_view spec, NgramOptions options) {
  const size_t colon = spec.find(':');
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
  return options;
}

DraftCapacity capacity_of(const DrafterContext& context) {
  return {context.max_sequences, context.context_length, context.cache_tokens, context.kv_dtype,
          context.float_activations};
}

Result<std::unique_ptr<Drafter>> load_block_drafter(DraftCheckpoint draft, const DrafterContext& context) {
  BlockDrafterOptions options{capacity_of(context)};
  options.shortlist = context.shortlist;
  DSPARK_ASSIGN_OR_RETURN(
      std::unique_ptr<BlockDrafter> drafter,
      BlockDrafter::create(std::move(draft), DraftTarget::of(*context.target), *context.pool, options));
  return std::unique_ptr<Drafter>(std::move(drafter));
}

Result<std::unique_ptr<Drafter>> load_paired_drafter(DraftCheckpoint draft, const DrafterContext& context) {
  PairedDrafterOptions options{capacity_of(context)};
  DSPARK_ASSIGN_OR_RETURN(
      std::unique_ptr<PairedDrafter> drafter,
      PairedDrafter::create(std::move(draft), DraftTarget::of(*context.target), *context.pool, options));
  return std::unique_ptr<Drafter>(std::move(drafter));
}

Result<std::unique_ptr<Drafter>> load_bundled_drafter(const DrafterContext& context) {
  if (context.target == nullptr || context.pool == nullptr) {
    return invalid_argument("drafter: 'bundled' needs a target model");
  }
  V4DrafterOptions options;
  options.max_sequences = context.max_sequences;
  options.context_length = context.context_length;
  options.cache_tokens = context.cache_tokens;
  options.kv_dtype = context.kv_dtype;
  options.float_activations = context.float_activations;
  options.shortlist = context.shortlist;
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<V4Drafter> drafter,
                          V4Drafter::create(*context.target, *context.pool, options));
  return std::unique_ptr<Drafter>(std::move(drafter));
}

/// A path that is the target's own checkpoint names the drafter inside it.
bool names_bundled(const std::string& path, const DrafterContext& context) {
  if (context.target == nullptr || !has_bundled_drafter(*context.target)) return false;
  std::error_code error;
  return std::filesystem::equivalent(path, context.target->checkpoint().path(), error) ||
         std::filesystem::equivalent(path, context.target->checkpoint().folder(), error);
}

/// One loader per kind of drafter.
Result<std::unique_ptr<Drafter>> load_learned_drafter(const std::string& path,
                                                      const DrafterContext& context) {
  if (context.target == nullptr || context.pool == nullptr) {
    return invalid_argument(path + ": a learned drafter needs a target model");
  }
  DSPARK_ASSIGN_OR_RETURN(DraftCheckpoint draft, open_draft_checkpoint(path));
  DSPARK_RETURN_IF_ERROR(check_draft_target(draft, DraftTarget::of(*context.target)));
  DSPARK_RETURN_IF_ERROR(check_same_tokens(*draft.file, context.target->checkpoint()));
  if (context.random_weights != 0) DSPARK_RETURN_IF_ERROR(randomize_weights(draft, context.random_weights));
  switch (draft.config.kind) {
    case DraftKind::kDSpark:
    case DraftKind::kDFlash:
      return load_block_drafter(std::move(draft), context);
    case DraftKind::kEagle3:
    case DraftKind::kMtp:
      return load_paired_drafter(std::move(draft), context);
  }
  return unsupported(path + ": drafters of this kind cannot be run");
}

}  // namespace

bool names_lookup(std::string_view spec) {
  return spec.substr(0, spec.find(':')) == "ngram";
}

DrafterSpec split_drafter_spec(std::string_view spec) {
  const size_t plus = spec.rfind('+');
  if (plus == std::string_view::npos || !names_lookup(spec.substr(plus + 1))) return {spec, {}};
  return {spec.substr(0, plus), spec.substr(plus + 1)};
}

Result<std::unique_ptr<Drafter>> make_drafter(std::string_view spec, const DrafterContext& context) {
  if (spec.empty() || spec == "none") return std::unique_ptr<Drafter>();
  if (names_lookup(spec)) {
    DSPARK_ASSIGN_OR_RETURN(NgramOptions options, parse_ngram(spec, {}));
    options.reserve = context.context_length;
    return std::unique_ptr<Drafter>(std::make_unique<NgramDrafter>(options));
  }
  const DrafterSpec parts = split_drafter_spec(spec);
  if (!parts.lookup.empty()) {
    HybridOptions options;
    DSPARK_ASSIGN_OR_RETURN(options.lookup, parse_ngram(parts.lookup, options.lookup));
    options.lookup.reserve = context.context_length;
    DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<Drafter> model, make_drafter(parts.drafter, context));
    if (model == nullptr || names_lookup(parts.drafter)) {
      return invalid_argument("drafter: '" + std::string(spec) + "': lookup joins a learned drafter only");
    }
    return std::unique_ptr<Drafter>(std::make_unique<HybridDrafter>(std::move(model), options));
  }
  if (spec == kBundledDrafter || names_bundled(std::string(spec), context))
    return load_bundled_drafter(context);
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::path(spec), error)) {
    return load_learned_drafter(std::string(spec), context);
  }
  return invalid_argument(
      "drafter: want none, bundled, ngram, ngram:MAX, ngram:MIN-MAX or the path of a drafter, perhaps with "
      "+ngram behind it, found '" +
      std::string(spec) + "'");
}

}  // namespace dspark
