#include "constrain/text_grammar.h"

#include <map>
#include <set>
#include <string>
#include <utility>

#include "constrain/text_scan.h"
#include "text/jinja_unicode.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;

std::u32string code_points(std::string_view text) {
  std::u32string codes;
  for (size_t pos = 0; pos < text.size();)
    codes.push_back(static_cast<char32_t>(jinja::next_code_point(text, pos)));
  return codes;
}

CodeRange range_of(char32_t code) {
  return {static_cast<uint32_t>(code), static_cast<uint32_t>(code)};
}

std::vector<CodeRange> ranges_of(const std::set<char32_t>& codes) {
  std::vector<CodeRange> ranges;
  for (const char32_t code : codes) ranges.push_back(range_of(code));
  return ranges;
}

std::vector<CodeRange> blank_ranges() {
  std::vector<CodeRange> ranges;
  for (const char blank : kBlanks) ranges.push_back(range_of(static_cast<char32_t>(blank)));
  return ranges;
}

// The beginnings of texts, the empty one among them, whole texts not, and a rule for each.
using BeginningRules = std::map<std::u32string, int32_t>;

BeginningRules rules_of(GrammarIr& ir, const std::vector<std::u32string>& texts, const char* name) {
  BeginningRules rules;
  for (const std::u32string& text : texts) {
    for (size_t length = 0; length < text.size(); ++length) {
      const auto [rule, is_new] = rules.emplace(text.substr(0, length), -1);
      if (is_new) rule->second = ir.add_rule(name);
    }
  }
  return rules;
}

// One rule per beginning of a mark that stands at the end of the text so far: falls back to shorter ones as
// Aho and Corasick do ("Efficient string matching", 1975).
class MarkedText {
 public:
  MarkedText(GrammarIr& ir, const std::vector<TextMark>& marks, bool may_end)
      : ir_(ir), marks_(marks), may_end_(may_end) {
    for (const TextMark& mark : marks) {
      texts_.push_back(code_points(mark.text));
      special_.insert(texts_.back().begin(), texts_.back().end());
    }
    rules_ = rules_of(ir, texts_, "text with marks");
  }

  Node root() {
    for (const auto& [beginning, rule] : rules_) ir_.set_body(rule, body(beginning));
    return ir_.call(rules_.at({}));
  }

 private:
  Node body(const std::u32string& beginning) {
    std::vector<Node> parts{ir_.sequence({ir_.not_in(ranges_of(special_)), ir_.call(rules_.at({}))})};
    for (const char32_t code : special_) {
      if (const std::optional<Node> next = behind(beginning + code))
        parts.push_back(ir_.sequence({ir_.char_class({range_of(code)}), *next}));
    }
    if (may_end_) parts.push_back(ir_.empty());
    return ir_.choice(std::move(parts));
  }

  // What may come when the text so far ends so. Nothing: it may not.
  std::optional<Node> behind(std::u32string seen) {
    for (size_t i = 0; i < marks_.size(); ++i) {
      if (!seen.ends_with(texts_[i])) continue;
      const TextMark& mark = marks_[i];
      if (!mark.followed || !mark.goes_on) return mark.followed;
      return ir_.sequence({*mark.followed, ir_.call(rules_.at({}))});
    }
    auto rule = rules_.find(seen);
    while (rule == rules_.end()) {
      seen.erase(0, 1);
      rule = rules_.find(seen);
    }
    return ir_.call(rule->second);
  }

  GrammarIr& ir_;
  const std::vector<TextMark>& marks_;
  const bool may_end_;
  std::vector<std::u32string> texts_;
  std::set<char32_t> special_;
  BeginningRules rules_;
};

}  // namespace

Node text_with_marks(GrammarIr& ir, const std::vector<TextMark>& marks, bool may_end) {
  return MarkedText(ir, marks, may_end).root();
}

Node text_through(GrammarIr& ir, std::string_view marker) {
  return text_with_marks(ir, {{marker, ir.empty()}}, false);
}

Node text_not_beginning_with(GrammarIr& ir, const std::vector<std::string_view>& beginnings) {
  std::vector<std::u32string> texts;
  for (const std::string_view beginning : beginnings) texts.push_back(code_points(beginning));
  const BeginningRules rules = rules_of(ir, texts, "text that begins otherwise");
  const Node any = ir.repeat(ir.not_in({}), 0, GrammarIr::kUnbounded);
  for (const auto& [beginning, rule] : rules) {
    std::set<char32_t> next;
    for (const std::u32string& text : texts) {
      if (text.starts_with(beginning)) next.insert(text[beginning.size()]);
    }
    std::vector<Node> parts{ir.empty()};
    std::vector<CodeRange> taken = ranges_of(next);
    if (beginning.empty()) {
      parts.push_back(ir.sequence({ir.char_class(blank_ranges()), ir.call(rule)}));
      for (const CodeRange& blank : blank_ranges()) taken.push_back(blank);
    }
    parts.push_back(ir.sequence({ir.not_in(taken), any}));
    for (const char32_t code : next) {
      const auto longer = rules.find(beginning + code);
      if (longer != rules.end())
        parts.push_back(ir.sequence({ir.char_class({range_of(code)}), ir.call(longer->second)}));
    }
    ir.set_body(rule, ir.choice(std::move(parts)));
  }
  return ir.call(rules.at({}));
}

Node blanks(GrammarIr& ir) {
  return ir.repeat(ir.char_class(blank_ranges()), 0, GrammarIr::kUnbounded);
}

}  // namespace dspark
