#pragma once
// Files inside the program: the page and the description of the interface. Made by CMake from
// src/server/page/ and src/server/openapi.json.

#include <span>
#include <string_view>

namespace dspark {

struct StaticFile {
  std::string_view name;  // "index.html", "openapi.json"
  std::string_view content;
};

std::span<const StaticFile> static_files();
/// Null when there is none.
const StaticFile* find_static_file(std::string_view name);
/// By the ending of the name.
const char* content_type_of(std::string_view name);

}  // namespace dspark
