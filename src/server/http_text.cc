#include "server/http_text.h"

#include <algorithm>
#include <cstdio>
#include <random>

namespace dspark {
namespace {

constexpr size_t kMaxRequestId = 128;

bool is_harmless(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
         c == '.';
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string decoded(std::string_view text, bool plus_is_blank) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape =
        text[i] == '%' && i + 2 < text.size() && hex_value(text[i + 1]) >= 0 && hex_value(text[i + 2]) >= 0;
    if (escape) {
      out += static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
      i += 2;
    } else {
      out += text[i] == '+' && plus_is_blank ? ' ' : text[i];
    }
  }
  return out;
}

}  // namespace

std::string response_head(const HttpResponse& response, const ResponseFraming& framing) {
  std::string head =
      "HTTP/1.1 " + std::to_string(response.status) + " " + http_reason(response.status) + "\r\n";
  if (response.status != 204) head += "Content-Type: " + response.content_type + "\r\n";
  if (framing.chunked) head += "Transfer-Encoding: chunked\r\n";
  if (!framing.streamed) head += "Content-Length: " + std::to_string(response.body.size()) + "\r\n";
  for (const auto& [name, value] : response.headers) head += name + ": " + value + "\r\n";
  head += framing.common;
  head += framing.close ? "Connection: close\r\n\r\n" : "Connection: keep-alive\r\n\r\n";
  return head;
}

void append_chunk(std::string& out, std::string_view data, bool chunked) {
  if (data.empty()) return;
  if (!chunked) {
    out.append(data);
    return;
  }
  char size[24];
  std::snprintf(size, sizeof(size), "%zx\r\n", data.size());
  out.append(size).append(data).append("\r\n");
}

std::string to_lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string make_request_id(std::string_view from_client) {
  bool usable = !from_client.empty() && from_client.size() <= kMaxRequestId;
  for (const char c : from_client) usable = usable && is_harmless(c);
  if (usable) return std::string(from_client);
  std::random_device random;
  char text[40];
  std::snprintf(text, sizeof(text), "%08x%08x%08x", random(), random(), random());
  return text;
}

std::string path_decoded(std::string_view part) {
  return decoded(part, false);
}

std::string query_value(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    const size_t equals = pair.find('=');
    if (pair.substr(0, equals) == name) {
      return equals == std::string_view::npos ? std::string() : decoded(pair.substr(equals + 1), true);
    }
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
  }
  return {};
}

}  // namespace dspark
