#include "cli/line_buffer.h"

#include <gtest/gtest.h>

#include <clocale>

namespace dspark::cli {
namespace {

TEST(LineBuffer, MovesAndErasesWholeCharacters) {
  LineBuffer line;
  line.set("a\u00e9\u20ac");  // 1, 2 and 3 bytes
  EXPECT_EQ(line.cursor(), 6u);
  line.left();
  EXPECT_EQ(line.cursor(), 3u);
  line.left();
  EXPECT_EQ(line.cursor(), 1u);
  line.erase_after();
  EXPECT_EQ(line.text(), "a\u20ac");
  line.right();
  line.erase_before();
  EXPECT_EQ(line.text(), "a");
  line.erase_before();
  line.erase_before();
  line.erase_after();
  line.left();
  line.right();
  EXPECT_EQ(line.text(), "");
  EXPECT_EQ(line.cursor(), 0u);
}

TEST(LineBuffer, InsertsAtTheCursor) {
  LineBuffer line;
  line.insert("world");
  line.home();
  line.insert("hello ");
  EXPECT_EQ(line.text(), "hello world");
  EXPECT_EQ(line.cursor(), 6u);
  line.erase_to_end();
  EXPECT_EQ(line.text(), "hello ");
  line.erase_word_before();
  EXPECT_EQ(line.text(), "");
  line.set("one two  ");
  line.erase_word_before();
  EXPECT_EQ(line.text(), "one ");
  line.erase_to_home();
  EXPECT_EQ(line.text(), "");
}

TEST(LineBuffer, SurvivesBytesThatAreNotUtf8) {
  LineBuffer line;
  line.set("\xff\x80\x80\x80\x80\x80\xc3");
  for (int i = 0; i < 10; ++i) line.left();
  EXPECT_EQ(line.cursor(), 0u);
  for (int i = 0; i < 10; ++i) line.right();
  EXPECT_EQ(line.cursor(), line.text().size());
  EXPECT_FALSE(visible_part(line, 10).text.empty());
  for (int i = 0; i < 10; ++i) line.erase_before();
  EXPECT_EQ(line.text(), "");
}

TEST(LineHistory, WalksUpAndDown) {
  LineHistory history;
  history.add("one");
  history.add("two");
  history.add("two");  // a repetition
  history.add("");
  EXPECT_EQ(history.size(), 2u);
  history.start("draft");
  std::string line;
  EXPECT_FALSE(history.down(line));
  ASSERT_TRUE(history.up(line));
  EXPECT_EQ(line, "two");
  ASSERT_TRUE(history.up(line));
  EXPECT_EQ(line, "one");
  EXPECT_FALSE(history.up(line));
  ASSERT_TRUE(history.down(line));
  EXPECT_EQ(line, "two");
  ASSERT_TRUE(history.down(line));
  EXPECT_EQ(line, "draft");
  EXPECT_FALSE(history.down(line));
}

TEST(VisiblePart, ScrollsToTheCursor) {
  LineBuffer line;
  line.set("0123456789");
  LineView view = visible_part(line, 20);
  EXPECT_EQ(view.text, "0123456789");
  EXPECT_EQ(view.cursor_column, 10);
  view = visible_part(line, 5);
  EXPECT_EQ(view.text, "6789");  // the last column is the cursor's
  EXPECT_EQ(view.cursor_column, 4);
  line.home();
  view = visible_part(line, 5);
  EXPECT_EQ(view.text, "01234");
  EXPECT_EQ(view.cursor_column, 0);
}

TEST(VisiblePart, ShowsControlsAsOneSign) {
  LineBuffer line;
  line.set("a\nb\033");
  const LineView view = visible_part(line, 20);
  EXPECT_EQ(view.text, "a\u21b5b?");
  EXPECT_EQ(view.cursor_column, 4);
}

TEST(VisiblePart, CountsWideCharactersTwice) {
  if (std::setlocale(LC_CTYPE, "C.UTF-8") == nullptr) FAIL() << "every Debian has C.UTF-8";
  LineBuffer line;
  line.set("\u65e5\u672c");
  EXPECT_EQ(visible_part(line, 20).cursor_column, 4);
  std::setlocale(LC_CTYPE, "C");
}

}  // namespace
}  // namespace dspark::cli
