#include "text/tokenizer_json_parse.h"

#include <nlohmann/json.hpp>
#include <string>

namespace dspark {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;  // real files have about 8

// Builds a small document, except for the two parts that are collected apart.
class Handler : public nlohmann::json_sax<json> {
 public:
  explicit Handler(TokenizerJson& out) : out_(out) {}

  bool null() override { return value(json(nullptr)); }
  bool boolean(bool v) override { return value(json(v)); }
  bool number_integer(number_integer_t v) override {
    return mode_ == Mode::kVocab ? fail("model.vocab: the id " + std::to_string(v) + " is negative")
                                 : value(json(v));
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (mode_ != Mode::kVocab) return value(json(v));
    if (v > INT32_MAX / 2) return fail("model.vocab: the id " + std::to_string(v) + " is too large");
    out_.vocab.add(key_);
    out_.ids.push_back(static_cast<int32_t>(v));
    return true;
  }
  bool number_float(number_float_t v, const string_t&) override { return value(json(v)); }
  bool binary(binary_t&) override { return fail("binary value"); }
  bool string(string_t& v) override {
    if (mode_ != Mode::kMerges && mode_ != Mode::kMergePair) return value(json(std::move(v)));
    if (out_.merges_are_pairs != (mode_ == Mode::kMergePair))
      return fail("model.merges: strings and pairs mixed");
    ++in_pair_;
    out_.merges.add(v);
    return true;
  }

  bool start_object(size_t) override {
    if (mode_ != Mode::kDocument) return fail_shape();
    if (at_model_part("vocab")) {
      mode_ = Mode::kVocab;
      return true;
    }
    return open(json::object());
  }
  bool key(string_t& v) override {
    key_ = std::move(v);
    return true;
  }
  bool end_object() override {
    if (mode_ == Mode::kVocab) {
      mode_ = Mode::kDocument;
      return true;
    }
    return close();
  }
  bool start_array(size_t) override {
    if (mode_ == Mode::kMerges) {
      if (out_.merges.size() == 0) out_.merges_are_pairs = true;
      mode_ = Mode::kMergePair;
      in_pair_ = 0;
      return true;
    }
    if (mode_ != Mode::kDocument) return fail_shape();
    if (at_model_part("merges")) {
      mode_ = Mode::kMerges;
      return true;
    }
    if (at_model_part("vocab")) {
      return fail(
          "model.vocab: expected an object of token: id (a BPE model), found an array (a Unigram model)");
    }
    return open(json::array());
  }
  bool end_array() override {
    if (mode_ == Mode::kMergePair) {
      mode_ = Mode::kMerges;
      return in_pair_ == 2 ||
             fail("model.merges: expected pairs, found " + std::to_string(in_pair_) + " texts");
    }
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kDocument;
      return true;
    }
    return close();
  }
  bool parse_error(size_t position, const std::string&, const json::exception& error) override {
    return fail("invalid JSON at byte " + std::to_string(position) + ": " + error.what());
  }

  const std::string& error() const { return error_; }

 private:
  enum class Mode { kDocument, kVocab, kMerges, kMergePair };

  bool fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }
  bool fail_shape() {
    return fail(mode_ == Mode::kVocab ? "model.vocab: expected an id for '" + key_ + "'"
                                      : "model.merges: expected strings or pairs of strings");
  }

  bool at_model_part(const char* name) const {
    return stack_.size() == 2 && model_ == stack_[1] && key_ == name;
  }

  json* place(json&& v) {
    if (stack_.empty()) {
      *out_.rest = std::move(v);
      return out_.rest.get();
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    json& slot = parent[key_];
    slot = std::move(v);
    return &slot;
  }
  bool value(json&& v) {
    if (mode_ != Mode::kDocument) return fail_shape();
    place(std::move(v));
    return true;
  }
  bool open(json&& container) {
    if (stack_.size() >= kMaxDepth) return fail("nested too deeply");
    const bool is_model = stack_.size() == 1 && key_ == "model" && stack_[0]->is_object();
    stack_.push_back(place(std::move(container)));
    if (is_model) model_ = stack_.back();
    return true;
  }
  bool close() {
    if (stack_.back() == model_) model_ = nullptr;
    stack_.pop_back();
    return true;
  }

  TokenizerJson& out_;
  Mode mode_ = Mode::kDocument;
  std::vector<json*> stack_;
  json* model_ = nullptr;
  std::string key_;
  int in_pair_ = 0;
  std::string error_;
};

}  // namespace

Result<TokenizerJson> parse_tokenizer_json(std::string_view text) {
  TokenizerJson out;
  out.rest = std::make_unique<json>();
  Handler handler(out);
  if (!json::sax_parse(text.begin(), text.end(), &handler)) {
    return corrupt_data(handler.error().empty() ? "invalid JSON" : handler.error());
  }
  if (!out.rest->is_object()) return corrupt_data("expected a JSON object");
  return out;
}

}  // namespace dspark
