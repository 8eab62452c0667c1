# Writes OUTPUT: a source with the files of FILES (a list) as string literals.
set(entries "")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  file(READ ${file} hex HEX)

  string(REGEX REPLACE "(..)" "\\\\x\\1" escaped "${hex}")
  string(LENGTH "${hex}" digits)
  math(EXPR size "${digits} / 2")
  string(APPEND entries "    {\"${name}\", std::string_view(\"${escaped}\", ${size})},\n")
endforeach()
file(WRITE ${OUTPUT}.new
"#include \"server/static_files.h\"\n\nnamespace dspark {\n\nstd::span<const StaticFile> static_files() {
  static constexpr StaticFile kFiles[] = {\n${entries}  };\n  return kFiles;\n}\n\n}  // namespace dspark\n")
file(RENAME ${OUTPUT}.new ${OUTPUT})
