#include "cli/line_editor.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "cli/progress.h"

namespace dspark::cli {
namespace {

constexpr char ctrl(char letter) {
  return static_cast<char>(letter & 0x1F);
}
constexpr char kEscape = 27;
constexpr char kBackspace = 127;

// Keys one by one and unechoed, and pastes marked by the terminal, while it lives.
class RawTerminal {
 public:
  RawTerminal() {
    ok_ = tcgetattr(STDIN_FILENO, &saved_) == 0;
    if (!ok_) return;
    termios raw = saved_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON | ISIG | IEXTEN);
    raw.c_iflag &= ~static_cast<tcflag_t>(ICRNL | INLCR | IXON);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    ok_ = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
    if (ok_) std::fputs("\033[?2004h", stderr);
  }
  ~RawTerminal() {
    if (!ok_) return;
    std::fputs("\033[?2004l", stderr);
    std::fflush(stderr);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  bool ok() const { return ok_; }

 private:
  termios saved_{};
  bool ok_ = false;
};

bool read_key(char& key) {
  ssize_t n = 0;
  do {
    n = ::read(STDIN_FILENO, &key, 1);
  } while (n < 0 && errno == EINTR);
  return n == 1;
}

// True when more input is there at once: a key sequence arrives in one piece, a lone Escape does not.
bool key_waiting() {
  pollfd descriptor{STDIN_FILENO, POLLIN, 0};
  return poll(&descriptor, 1, 50) > 0;
}

int terminal_columns() {
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

void redraw(const std::string& prompt, const LineBuffer& buffer) {
  const int prompt_columns = static_cast<int>(prompt.size());
  const LineView view = visible_part(buffer, std::max(1, terminal_columns() - prompt_columns - 1));
  std::string out = "\r" + prompt + view.text + "\033[K\r";
  const int column = prompt_columns + view.cursor_column;
  if (column > 0) out += "\033[" + std::to_string(column) + "C";
  std::fputs(out.c_str(), stderr);
  std::fflush(stderr);
}

bool terminal_can_edit() {
  const char* term = std::getenv("TERM");
  return stdin_is_terminal() && stderr_is_terminal() && term != nullptr && std::string_view(term) != "dumb";
}

}  // namespace

LineEnd LineEditor::read(const std::string& prompt, std::string& line) {
  line.clear();
  if (terminal_can_edit()) return edit(prompt, line);
  if (stdin_is_terminal()) {
    std::fputs(prompt.c_str(), stderr);
    std::fflush(stderr);
  }
  return read_plain(line);
}

LineEnd LineEditor::read_plain(std::string& line) {
  for (int c = std::getchar(); c != EOF; c = std::getchar()) {
    if (c == '\n') return LineEnd::kLine;
    line += static_cast<char>(c);
  }
  return line.empty() ? LineEnd::kEndOfFile : LineEnd::kLine;
}

LineEnd LineEditor::edit(const std::string& prompt, std::string& line) {
  RawTerminal terminal;
  if (!terminal.ok()) return read_plain(line);
  LineBuffer buffer;
  history_.start("");
  pasting_ = false;
  LineEnd end = LineEnd::kEndOfFile;
  redraw(prompt, buffer);
  char key = 0;
  while (read_key(key)) {
    if (!pasting_ && (key == '\r' || key == '\n')) {
      end = LineEnd::kLine;
      break;
    }
    if (key == ctrl('C')) {
      end = LineEnd::kInterrupt;
      break;
    }
    if (key == ctrl('D') && buffer.text().empty()) break;
    handle_key(key, buffer);
    // A paste is drawn once, when all of it is there.
    if (!pasting_) redraw(prompt, buffer);
  }
  buffer.end();
  redraw(prompt, buffer);
  std::fputs("\r\n", stderr);
  line = buffer.text();
  return end;
}

void LineEditor::handle_key(char key, LineBuffer& buffer) {
  switch (key) {
    case kEscape:
      handle_escape(buffer);
      break;
    case kBackspace:
    case ctrl('H'):
      buffer.erase_before();
      break;
    case ctrl('A'):
      buffer.home();
      break;
    case ctrl('E'):
      buffer.end();
      break;
    case ctrl('B'):
      buffer.left();
      break;
    case ctrl('F'):
      buffer.right();
      break;
    case ctrl('D'):
      buffer.erase_after();
      break;
    case ctrl('K'):
      buffer.erase_to_end();
      break;
    case ctrl('U'):
      buffer.erase_to_home();
      break;
    case ctrl('W'):
      buffer.erase_word_before();
      break;
    case ctrl('P'):
      walk_history(true, buffer);
      break;
    case ctrl('N'):
      walk_history(false, buffer);
      break;
    case ctrl('L'):
      std::fputs("\033[H\033[2J", stderr);
      break;
    case '\r':
    case '\n':
      buffer.insert("\n");
      break;
    case '\t':
      buffer.insert(pasting_ ? "\t" : "    ");
      break;
    default:
      if (static_cast<unsigned char>(key) >= 0x20) buffer.insert(std::string_view(&key, 1));
  }
}

void LineEditor::walk_history(bool older, LineBuffer& buffer) {
  std::string line;
  if (older ? history_.up(line) : history_.down(line)) buffer.set(line);
}

// ESC [ parameters final, or ESC O final (xterm's function keys).
void LineEditor::handle_escape(LineBuffer& buffer) {
  char key = 0;
  if (!key_waiting() || !read_key(key) || (key != '[' && key != 'O')) return;
  std::string parameters;
  while (parameters.size() < 16 && key_waiting() && read_key(key)) {
    if (key >= '@' && key <= '~') break;
    parameters += key;
  }
  switch (key) {
    case 'A':
      walk_history(true, buffer);
      break;
    case 'B':
      walk_history(false, buffer);
      break;
    case 'C':
      buffer.right();
      break;
    case 'D':
      buffer.left();
      break;
    case 'H':
      buffer.home();
      break;
    case 'F':
      buffer.end();
      break;
    case '~':
      handle_numbered_key(parameters, buffer);
      break;
    default:
      break;
  }
}

// ESC [ number ~; 200 and 201 stand around a paste.
void LineEditor::handle_numbered_key(const std::string& number, LineBuffer& buffer) {
  if (number == "1" || number == "7") buffer.home();
  if (number == "4" || number == "8") buffer.end();
  if (number == "3") buffer.erase_after();
  if (number == "200") pasting_ = true;
  if (number == "201") pasting_ = false;
}

}  // namespace dspark::cli
