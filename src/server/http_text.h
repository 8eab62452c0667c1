#pragma once
// The texts of HTTP/1.1 responses, and small helpers for headers and targets.

#include <cstdint>
#include <string>
#include <string_view>

#include "server/exchange.h"

namespace dspark {

/// How a response is framed.
struct ResponseFraming {
  bool streamed = false;    // the body's length is not known
  bool chunked = false;     // of a streamed body; else the end of the connection ends it
  bool close = false;       // the connection is closed after the response
  std::string common = {};  // further header lines, each with its line end
};

/// Status line and headers, with the empty line behind them.
std::string response_head(const HttpResponse& response, const ResponseFraming& framing);
/// Appends `data` as one chunk (nothing when empty), or as it is.
void append_chunk(std::string& out, std::string_view data, bool chunked);

/// ASCII letters only.
std::string to_lower(std::string_view text);
/// The client's id when it is a short word of harmless characters, else a new random one.
std::string make_request_id(std::string_view from_client);
/// A part of a path with its "%41" decoded.
std::string path_decoded(std::string_view part);
/// The value of a parameter of a query, "%41" and "+" decoded; "" when absent.
std::string query_value(std::string_view query, std::string_view name);

}  // namespace dspark
