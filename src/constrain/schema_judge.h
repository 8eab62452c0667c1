#pragma once
// Whether a schema accepts a value that is known, as those of "enum" and "const" are.

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"
#include "constrain/text_set.h"

namespace dspark {

/// In this order "and" is the lesser and "or" the greater of two.
enum class Verdict : uint8_t { kNo, kUnknown, kYes };

/// Reads every keyword, also those that no grammar is made for. thread: one at a time.
class SchemaJudge {
 public:
  using Json = nlohmann::ordered_json;
  /// root: what references start from; must outlive the judge.
  explicit SchemaJudge(const Json& root) : root_(root) {}

  /// kUnknown: formats, keywords of another kind than they should be, references without end, too much work.
  Verdict accepts(const Json& schema, const Json& value) const { return accepts(schema, value, 0); }
  /// The texts that a pattern of the schema matches, made once. errors: those of TextSet::matching;
  /// resource_exhausted when there are too many patterns.
  const Result<TextSet>& matching(const std::string& pattern) const;

 private:
  Verdict accepts(const Json& schema, const Json& value, int depth) const;
  Verdict keyword(const Json& schema, const std::string& key, const Json& value, int depth) const;
  Verdict combined(const Json& schema, const std::string& key, const Json& value, int depth) const;
  Verdict in_number(const std::string& key, const Json& limit, double value) const;
  Verdict in_string(const std::string& key, const Json& limit, const std::string& value) const;
  Verdict in_array(const Json& schema, const std::string& key, const Json& value, int depth) const;
  Verdict contained(const Json& schema, const Json& value, int depth) const;
  Verdict in_object(const Json& schema, const std::string& key, const Json& value, int depth) const;
  Verdict member(const Json& schema, const std::string& name, const Json& value, int depth) const;
  Verdict dependencies(const Json& wanted, const Json& value, int depth) const;

  const Json& root_;
  mutable std::map<std::string, Result<TextSet>> sets_;
  mutable int64_t n_steps_ = 0;
};

/// Whether a value is of a type of JSON Schema ("integer": 1.0 too).
bool is_of_type(const nlohmann::ordered_json& value, std::string_view type);
/// Equal as JSON: the order of members does not count.
bool same_value(const nlohmann::ordered_json& a, const nlohmann::ordered_json& b);
/// What "#/..." leads to, or nullptr. missing: the part of the way that is not there, if not nullptr.
const nlohmann::ordered_json* follow_pointer(const nlohmann::ordered_json& root, std::string_view pointer,
                                             std::string* missing = nullptr);

}  // namespace dspark
