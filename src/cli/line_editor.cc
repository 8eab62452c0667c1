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

// The terminal's settings. Line mode is left for as long as this lives: switching back and forth would lose
// what was typed in between.
class LineEditor::Terminal {
 public:
  // Null when the settings cannot be read.
  static std::unique_ptr<Terminal> take() {
    termios saved{};
    if (tcgetattr(STDIN_FILENO, &saved) != 0) return nullptr;
    return std::unique_ptr<Terminal>(new Terminal(saved));
  }
  ~Terminal() { tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_); }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Ctrl-C is a key while a line is edited and a signal while an answer is written.
  void set_signals(bool on) {
    termios raw = saved_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_lflag |= static_cast<tcflag_t>(NOFLSH) | (on ? static_cast<tcflag_t>(ISIG) : 0);
    raw.c_iflag &= ~static_cast<tcflag_t>(ICRNL | INLCR | IXON);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
  }

 private:
  explicit Terminal(const termios& saved) : saved_(saved) { set_signals(true); }

  termios saved_;
};

LineEditor::LineEditor(std::atomic<bool>& interrupted) : interrupted_(interrupted) {
  if (terminal_can_edit()) terminal_ = Terminal::take();
}

LineEditor::~LineEditor() = default;

LineEnd LineEditor::read(const std::string& prompt, std::string& line) {
  line.clear();
  return terminal_ != nullptr ? edit(prompt, line) : read_plain(prompt, line);
}

// returns: false when there is no key, and why in `end`.
bool LineEditor::read_key(char& key, LineEnd& end) {
  for (;;) {
    if (interrupted_.exchange(false)) {
      end = LineEnd::kInterrupt;
      return false;
    }
    // poll, unlike read, is not resumed after a signal.
    pollfd descriptor{STDIN_FILENO, POLLIN, 0};
    if (poll(&descriptor, 1, -1) < 0 && errno == EINTR) continue;
    const ssize_t n = ::read(STDIN_FILENO, &key, 1);
    if (n == 1) return true;
    if (n < 0 && errno == EINTR) continue;
    end = LineEnd::kEndOfFile;
    return false;
  }
}

LineEnd LineEditor::read_plain(const std::string& prompt, std::string& line) {
  std::fputs(prompt.c_str(), stderr);
  std::fflush(stderr);
  LineEnd end = LineEnd::kLine;
  char key = 0;
  while (read_key(key, end)) {
    if (key == '\n') return LineEnd::kLine;
    line += key;
  }
  return end == LineEnd::kEndOfFile && !line.empty() ? LineEnd::kLine : end;
}

LineEnd LineEditor::edit(const std::string& prompt, std::string& line) {
  terminal_->set_signals(false);
  std::fputs("\033[?2004h", stderr);  // the terminal marks pastes
  LineBuffer buffer;
  history_.start("");
  pasting_ = false;
  LineEnd end = LineEnd::kLine;
  redraw(prompt, buffer);
  char key = 0;
  while (read_key(key, end)) {
    if (!pasting_ && (key == '\r' || key == '\n')) break;
    if (key == ctrl('C')) {
      end = LineEnd::kInterrupt;
      break;
    }
    if (key == ctrl('D') && buffer.text().empty()) {
      end = LineEnd::kEndOfFile;
      break;
    }
    handle_key(key, buffer);
    // A paste is drawn once, when all of it is there.
    if (!pasting_) redraw(prompt, buffer);
  }
  buffer.end();
  redraw(prompt, buffer);
  std::fputs("\033[?2004l\r\n", stderr);
  std::fflush(stderr);
  terminal_->set_signals(true);
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
  LineEnd end = LineEnd::kLine;
  if (!key_waiting() || !read_key(key, end) || (key != '[' && key != 'O')) return;
  std::string parameters;
  while (parameters.size() < 16 && key_waiting() && read_key(key, end)) {
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
