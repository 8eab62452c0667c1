#pragma once
// Reads tool calls in notations whose arguments are not JSON, while they are written, and turns them into
// JSON.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "constrain/output_format.h"

namespace dspark {

/// What a reader made of the text in front of it.
struct CallStep {
  enum class Kind : uint8_t {
    kMore,       // nothing, before more text comes
    kPassed,     // `used` bytes that say nothing by themselves
    kName,       // text: the name of a new call
    kArguments,  // text: more of its arguments, JSON text
    kCallEnd,    // it is complete
    kBroken,     // it goes no further: what is wrong is passed over
    kBlockEnd,   // behind the last call
    kNoCall,     // what was read since the last call is none
  };
  Kind kind = Kind::kMore;
  size_t used = 0;
  std::string text;
};

/// One block of calls, from the marker that opens it.
class CallReader {
 public:
  virtual ~CallReader() = default;
  /// text: what follows the bytes used so far; is_last: and nothing comes behind it. How the text is cut into
  /// pieces changes nothing but where the arguments are cut.
  virtual CallStep next(std::string_view text, bool is_last) = 0;
};

/// Texts behind which content may be a call, wherever they stand. Empty: formats whose calls are whole
/// answers.
const std::vector<std::string_view>& call_markers(ToolFormat format);
/// Those that open a block for a reader. Empty: formats that have no such reader.
const std::vector<std::string_view>& block_markers(ToolFormat format);

/// requires: a format with block_markers. tools: their schemas type the values of some notations.
std::unique_ptr<CallReader> make_call_reader(ToolFormat format, const std::vector<ToolDescription>& tools);

/// Values between tags, named by function and parameter tags. dsml: DeepSeek's tags, else Qwen's.
std::unique_ptr<CallReader> make_tag_reader(bool dsml, const std::vector<ToolDescription>& tools);
/// Gemma 4's call:NAME{key:value}.
std::unique_ptr<CallReader> make_gemma4_reader();

}  // namespace dspark
