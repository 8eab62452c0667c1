#include "cli/line_buffer.h"

#include <algorithm>
#include <cstdint>
#include <cwchar>

namespace dspark::cli {
namespace {

bool is_continuation(char c) {
  return (static_cast<uint8_t>(c) & 0xC0) == 0x80;
}

size_t previous_character(std::string_view text, size_t at) {
  if (at == 0) return 0;
  size_t begin = at - 1;
  while (begin > 0 && at - begin < 4 && is_continuation(text[begin])) --begin;
  return begin;
}

size_t next_character(std::string_view text, size_t at) {
  if (at >= text.size()) return text.size();
  size_t end = at + 1;
  while (end < text.size() && end - at < 4 && is_continuation(text[end])) ++end;
  return end;
}

uint32_t decode(std::string_view character) {
  const uint8_t lead = static_cast<uint8_t>(character[0]);
  uint32_t code = character.size() == 1 ? lead : lead & (0x7Fu >> character.size());
  for (size_t i = 1; i < character.size(); ++i)
    code = code << 6 | (static_cast<uint8_t>(character[i]) & 0x3F);
  return code;
}

struct Cell {
  std::string shown;
  int width;
};

// Controls would move the terminal's cursor; they are shown as a sign of one column.
Cell cell_of(std::string_view character) {
  if (character == "\n") return {"\xE2\x86\xB5", 1};
  const uint32_t code = decode(character);
  if (code < 0x20 || code == 0x7F || (character.size() == 1 && code >= 0x80)) return {"?", 1};
  const int width = wcwidth(static_cast<wchar_t>(code));
  return {std::string(character), width < 0 ? 1 : width};
}

}  // namespace

void LineBuffer::set(std::string text) {
  text_ = std::move(text);
  end();
}

void LineBuffer::insert(std::string_view text) {
  text_.insert(cursor_, text);
  cursor_ += text.size();
}

void LineBuffer::left() {
  cursor_ = previous_character(text_, cursor_);
}

void LineBuffer::right() {
  cursor_ = next_character(text_, cursor_);
}

void LineBuffer::erase_before() {
  const size_t begin = previous_character(text_, cursor_);
  text_.erase(begin, cursor_ - begin);
  cursor_ = begin;
}

void LineBuffer::erase_after() {
  text_.erase(cursor_, next_character(text_, cursor_) - cursor_);
}

void LineBuffer::erase_word_before() {
  size_t begin = cursor_;
  while (begin > 0 && text_[begin - 1] == ' ') --begin;
  while (begin > 0 && text_[begin - 1] != ' ') --begin;
  text_.erase(begin, cursor_ - begin);
  cursor_ = begin;
}

void LineBuffer::erase_to_home() {
  text_.erase(0, cursor_);
  cursor_ = 0;
}

void LineHistory::add(std::string_view line) {
  if (line.empty() || (!lines_.empty() && lines_.back() == line)) return;
  lines_.emplace_back(line);
}

void LineHistory::start(std::string_view draft) {
  draft_ = draft;
  at_ = lines_.size();
}

bool LineHistory::up(std::string& line) {
  if (at_ == 0) return false;
  line = lines_[--at_];
  return true;
}

bool LineHistory::down(std::string& line) {
  if (at_ >= lines_.size()) return false;
  ++at_;
  line = at_ == lines_.size() ? draft_ : lines_[at_];
  return true;
}

LineView visible_part(const LineBuffer& line, int columns) {
  std::vector<Cell> cells;
  size_t cursor_cell = 0;
  const std::string& text = line.text();
  for (size_t at = 0; at < text.size();) {
    const size_t next = next_character(text, at);
    if (at < line.cursor()) cursor_cell = cells.size() + 1;
    cells.push_back(cell_of(std::string_view(text).substr(at, next - at)));
    at = next;
  }
  // The cursor needs a column of its own behind the text before it.
  int before = 0;
  size_t first = cursor_cell;
  while (first > 0 && before + cells[first - 1].width < columns) before += cells[--first].width;
  LineView view;
  view.cursor_column = before;
  int used = 0;
  for (size_t i = first; i < cells.size() && used + cells[i].width <= columns; ++i) {
    view.text += cells[i].shown;
    used += cells[i].width;
  }
  return view;
}

}  // namespace dspark::cli
