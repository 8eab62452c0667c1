#include "formats/json_reader.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/mapped_file.h"
#include "formats/error_text.h"

namespace dspark {
namespace {

using nlohmann::json;

/// Builds a document from parser events. The parser itself keeps no call stack per level, so stopping at
/// kMaxJsonDepth here is what bounds the depth of the document (whose users may recurse).
class DocumentBuilder {
 public:
  explicit DocumentBuilder(DuplicateKeys duplicates) : duplicates_(duplicates) {}

  const std::string& error() const { return error_; }
  json take() { return std::move(root_); }

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(int64_t value) { return add(value); }
  bool number_unsigned(uint64_t value) { return add(value); }
  bool number_float(double value, const std::string& /*text*/) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(std::vector<uint8_t>& /*value*/) { return fail("binary value"); }
  bool start_object(size_t /*n*/) { return open(json::object()); }
  bool start_array(size_t /*n*/) { return open(json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    if (duplicates_ == DuplicateKeys::kRefuse && stack_.back()->contains(name)) {
      return fail("the key " + in_quotes(name) + " appears twice in one object");
    }
    key_ = std::move(name);
    return true;
  }
  bool parse_error(size_t position, const std::string& last_token, const json::exception& /*why*/) {
    return fail(fmt::format("not valid JSON at byte {} near {}", position, in_quotes(last_token)));
  }

 private:
  json* place(json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }
  bool add(json value) {
    place(std::move(value));
    return true;
  }
  bool open(json container) {
    if (stack_.size() >= static_cast<size_t>(kMaxJsonDepth)) {
      return fail(fmt::format("JSON nested deeper than {} levels", kMaxJsonDepth));
    }
    stack_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }
  bool fail(std::string why) {
    error_ = std::move(why);
    return false;
  }

  DuplicateKeys duplicates_;
  json root_;
  std::vector<json*> stack_;  // open containers; stable, because only the innermost one grows
  std::string key_;
  std::string error_;
};

}  // namespace

Result<json> parse_json(std::string_view text, const std::string& where, DuplicateKeys duplicates) {
  DocumentBuilder builder(duplicates);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    return corrupt_data(where + ": " + builder.error());
  }
  return builder.take();
}

Result<json> read_json_file(const std::string& path, DuplicateKeys duplicates) {
  DSPARK_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  const auto bytes = file.bytes();
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path, duplicates);
}

}  // namespace dspark
