#include "server/static_files.h"

namespace dspark {

const StaticFile* find_static_file(std::string_view name) {
  for (const StaticFile& file : static_files()) {
    if (file.name == name) return &file;
  }
  return nullptr;
}

const char* content_type_of(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".svg")) return "image/svg+xml";
  if (name.ends_with(".json")) return "application/json";
  return "application/octet-stream";
}

}  // namespace dspark
