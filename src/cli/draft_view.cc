#include "cli/draft_view.h"

#include <algorithm>

namespace dspark::cli {
namespace {

struct Style {
  const char* name;
  const char* ansi;
  const char* open;
  const char* close;
};

const Style& style_of(DraftMark mark) {
  static constexpr Style kStyles[] = {
      {"plain", "", "", ""},
      {"accepted", "\033[32m", "[", "]"},
      {"looked up", "\033[34m", "[=", "=]"},
      {"correction", "\033[33m", "<", ">"},
      {"bonus", "\033[36m", "(", ")"},
      {"rejected", "\033[31;9m", "{-", "-}"},
      {"trimmed", "\033[90;9m", "{~", "~}"},
  };
  return kStyles[static_cast<size_t>(mark)];
}

constexpr const char* kReset = "\033[0m";

/// The mark of a committed token; accepted ones tell who proposed them.
DraftMark mark_of(const TokenEvent& event, const RoundView* round) {
  const auto at = static_cast<size_t>(event.draft_idx);
  switch (event.origin) {
    case TokenOrigin::kAccepted:
      if (round != nullptr && at < round->sources.size() && round->sources[at] == ProposalSource::kLookup)
        return DraftMark::kLookedUp;
      return DraftMark::kAccepted;
    case TokenOrigin::kCorrection:
      return DraftMark::kCorrection;
    case TokenOrigin::kBonus:
      return DraftMark::kBonus;
    case TokenOrigin::kPlain:
      break;
  }
  return DraftMark::kPlain;
}

/// Bytes at the end of `text` that begin a character without completing it.
size_t unfinished_bytes(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

/// Line breaks as signs, so that a dropped draft does not break the line.
std::string one_line(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string DraftView::legend() const {
  std::string line = "drafts:";
  for (DraftMark mark : {DraftMark::kAccepted, DraftMark::kLookedUp, DraftMark::kCorrection,
                         DraftMark::kBonus, DraftMark::kRejected, DraftMark::kTrimmed}) {
    line += ' ';
    append(mark, style_of(mark).name, line);
  }
  return line + "\n";
}

void DraftView::append(DraftMark mark, std::string_view text, std::string& out) const {
  if (text.empty()) return;
  const Style& style = style_of(mark);
  if (mark == DraftMark::kPlain) {
    out += text;
  } else if (color_) {
    out.append(style.ansi).append(text).append(kReset);
  } else {
    out.append(style.open).append(text).append(style.close);
  }
}

void DraftView::flush_run(std::string& out) {
  append(run_mark_, run_, out);
  run_.clear();
}

void DraftView::append_committed(const TokenEvent& event, DraftMark mark, std::string& out) {
  if (tokenizer_.is_special(event.token)) {
    // Not part of the text, but the round had it.
    if (mark != run_mark_) flush_run(out);
    run_mark_ = mark;
    run_ += tokenizer_.token_text(event.token);
    return;
  }
  pending_ += tokenizer_.token_bytes(event.token);
  const size_t n_whole = pending_.size() - unfinished_bytes(pending_);
  if (n_whole == 0) return;
  if (mark != run_mark_) flush_run(out);
  run_mark_ = mark;
  run_.append(pending_, 0, n_whole);
  pending_.erase(0, n_whole);
}

void DraftView::append_dropped(DraftMark mark, std::span<const int32_t> tokens, std::string& out) const {
  std::string text;
  for (int32_t token : tokens) {
    text += tokenizer_.is_special(token) ? tokenizer_.token_text(token) : tokenizer_.token_bytes(token);
  }
  text.resize(text.size() - unfinished_bytes(text));
  append(mark, one_line(text), out);
}

std::string DraftView::render(const StreamUpdate& update) {
  std::string out;
  const size_t n_accepted = update.round == nullptr ? 0 : static_cast<size_t>(update.round->counts.accepted);
  for (size_t i = 0; i < update.tokens.size(); ++i) {
    if (i == n_accepted && update.round != nullptr) {
      flush_run(out);
      const RoundRecord& counts = update.round->counts;
      const auto n_judged = static_cast<size_t>(counts.proposal_length);
      const auto n_verified = static_cast<size_t>(counts.verified);
      append_dropped(DraftMark::kRejected, update.round->drafts.subspan(n_accepted, n_judged - n_accepted),
                     out);
      append_dropped(DraftMark::kTrimmed, update.round->drafts.subspan(n_verified), out);
    }
    append_committed(update.tokens[i], mark_of(update.tokens[i], update.round), out);
  }
  flush_run(out);
  return out;
}

std::string DraftView::finish() {
  std::string out = std::move(pending_);
  pending_.clear();
  return out;
}

}  // namespace dspark::cli
