#pragma once
// How bytes of a file appear in an error message.

#include <string>
#include <string_view>

namespace dspark {

/// `text` in quotes for an error message: bytes outside printable ASCII become \xNN, long text is cut.
std::string in_quotes(std::string_view text);

}  // namespace dspark
