#pragma once
// The text and cursor of one line being edited: no terminal here, so that it can be tested.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace dspark::cli {

/// UTF-8 text with a cursor between characters. Invalid bytes count as characters of their own.
class LineBuffer {
 public:
  const std::string& text() const { return text_; }
  size_t cursor() const { return cursor_; }  // byte offset
  void set(std::string text);                // cursor to the end
  void insert(std::string_view text);

  void left();
  void right();
  void home() { cursor_ = 0; }
  void end() { cursor_ = text_.size(); }
  void erase_before();       // backspace
  void erase_after();        // delete
  void erase_word_before();  // Ctrl-W
  void erase_to_end() { text_.erase(cursor_); }
  void erase_to_home();

 private:
  std::string text_;
  size_t cursor_ = 0;
};

/// Lines typed before, newest last; walking starts behind the newest.
class LineHistory {
 public:
  /// Empty lines and repetitions of the newest are not kept.
  void add(std::string_view line);
  /// returns: false at the end of the walk; else `line` is the older or newer one.
  bool up(std::string& line);
  bool down(std::string& line);
  /// Starts a walk at the newest line; `draft` is what down() comes back to.
  void start(std::string_view draft);
  size_t size() const { return lines_.size(); }

 private:
  std::vector<std::string> lines_;
  std::string draft_;
  size_t at_ = 0;
};

/// The part of a line that fits a terminal row, and the column of the cursor in it. Line breaks are shown as
/// one sign each.
struct LineView {
  std::string text;
  int cursor_column = 0;
};
/// requires: columns >= 1.
LineView visible_part(const LineBuffer& line, int columns);

}  // namespace dspark::cli
