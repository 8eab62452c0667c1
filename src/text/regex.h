#pragma once
// Regular expressions of pre-tokenisers, on PCRE2 with Unicode properties and JIT.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace dspark {

/// A compiled pattern in the dialect of tokenizer.json (Oniguruma / Rust regex). `\s` means Unicode
/// White_Space, `$` the very end. Movable. thread: const members from any thread, each with its own Scratch.
class Regex {
 public:
  /// Memory of one search; make one per encode call.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(Scratch&&) noexcept;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Regex;
    struct Impl;
    std::unique_ptr<Impl> impl_;
  };

  /// errors: invalid_argument with PCRE2's reason and the offset; unsupported for class intersections (&&).
  static Result<Regex> compile(std::string_view pattern);
  /// Pattern that matches exactly `text`.
  static Result<Regex> literal(std::string_view text);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  /// First non-empty match at or after byte `from`: [begin, end). Nothing when there is none, or when the
  /// search passes PCRE2's limits (a pathological pattern must not hang the program).
  /// requires: `subject` is structurally valid UTF-8 without surrogates, `from` on a character boundary.
  std::optional<std::pair<size_t, size_t>> find(std::string_view subject, size_t from,
                                                Scratch& scratch) const;

 private:
  struct Impl;
  explicit Regex(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace dspark
