#pragma once
// Text of one sequence on its way out: stop strings, and no character cut in two.

#include <string>
#include <string_view>
#include <vector>

namespace dspark {

/// Fed with the bytes of committed tokens, it releases text as early as possible: bytes that may still become
/// a stop string or that are an unfinished UTF-8 character are held back.
class StopMatcher {
 public:
  StopMatcher() = default;
  /// requires: no empty strings.
  explicit StopMatcher(std::vector<std::string> stop_strings) : stops_(std::move(stop_strings)) {}

  /// Appends bytes of one token. returns: true when a stop string is complete; the text then ends before it
  /// and nothing more may be fed. Of several, the one that ends first wins, then the one that starts first.
  bool feed(std::string_view bytes);
  /// Text that became certain since the last call; valid until the next feed, finish or take.
  std::string_view take();
  /// The end without a stop string: what is held back becomes certain, unfinished characters included.
  void finish();
  /// The stop string that ended the text; empty as long as none did. Valid as long as this is.
  std::string_view hit() const { return hit_ < stops_.size() ? stops_[hit_] : std::string_view(); }

 private:
  size_t held_back() const;

  std::vector<std::string> stops_;
  size_t hit_ = std::string::npos;  // index in stops_
  std::string text_;                // taken | certain | held back
  size_t taken_ = 0;                // bytes handed out, dropped at the next feed
  size_t certain_ = 0;              // end of the certain part
};

}  // namespace dspark
