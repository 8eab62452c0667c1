#!/usr/bin/env python3
"""The checks must find what they are for: each is run on a small made-up tree with one defect."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import check_docs  # noqa: E402
import check_rooms  # noqa: E402
import check_sizes  # noqa: E402

TABLE = """
| room | holds | uses |
|---|---|---|
| `base/` | x | nothing |
| `text/` | x | base |
| `cli/` | x | text |
"""


class Tree(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.addCleanup(self.folder.cleanup)
        self.write("docs/architecture.md", TABLE)
        self.write("src/base/a.h", '#include <vector>\nstruct Thing {};\n')
        self.write("src/text/b.cc", '#include "base/a.h"\n#include "text/b.h"\n')

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class Rooms(Tree):
    def test_clean_tree_passes(self):
        self.write("src/cli/c.cc", '#include "base/a.h"\n#include "text/b.h"\nint f() { printf("x"); }\n')
        self.assertEqual(check_rooms.check(self.root), [])

    def test_include_against_the_table(self):
        self.write("src/base/a.h", '#include "text/b.h"\n')
        self.assertIn("base may not include text/b.h", check_rooms.check(self.root)[0])

    def test_link_against_the_table(self):
        self.write("src/base/CMakeLists.txt", "dspark_room(base SOURCES a.cc\n  LINKS dspark_text)\n")
        self.assertIn("may not link dspark_text", check_rooms.check(self.root)[0])

    def test_cycle_and_unknown_room(self):
        self.write("docs/architecture.md", TABLE.replace("| nothing |", "| cli |"))
        self.assertIn("cycle", check_rooms.check(self.root)[0])
        self.write("docs/architecture.md", TABLE)
        self.write("src/new/a.cc", "")
        self.assertIn("no row", check_rooms.check(self.root)[0])

    def test_printing_in_a_library(self):
        for line in ("std::cerr << 1;", 'fprintf(stderr, "x");', "std::abort();", "exit(1);"):
            self.write("src/text/b.cc", f"void f() {{ {line} }}\n")
            self.assertEqual(len(check_rooms.check(self.root)), 1, line)
        for line in ('snprintf(b, 3, "exit(1)");', "// printf(x)", "on_exit_code(2);", "do_exit(1);"):
            self.write("src/text/b.cc", f"void f() {{\n{line}\n}}\n")
            self.assertEqual(check_rooms.check(self.root), [], line)

    def test_heavy_header(self):
        self.write("src/text/b.h", "#include <nlohmann/json.hpp>\n")
        self.assertIn("keep it in a .cc file", check_rooms.check(self.root)[0])
        self.write("src/text/b.h", "#include <nlohmann/json_fwd.hpp>\n")
        self.assertEqual(check_rooms.check(self.root), [])


class Sizes(unittest.TestCase):
    def test_functions_are_found(self):
        code = (
            "namespace a {\nclass B {\n  int f() const { return 1; }\n  int x = 3;\n};\n"
            "int g(int a,\n      int b) {\n  // }\n  auto l = [&] { return '{'; };\n  if (a) {\n  }\n"
            '  const char* s = "}";\n  return b;\n}\nint table[] = {1, 2};\nA::A() : x{1} {}\n}\n'
        )
        found = {name: size for name, _, size in check_sizes.functions_of(code)}
        self.assertEqual(found["f"], 1)
        self.assertEqual(found["g"], 9)
        self.assertIn("A::A", found)
        self.assertEqual(len(found), 3)


class Docs(Tree):
    def setUp(self):
        super().setUp()
        for name in check_docs.DOCUMENTS:
            self.write(name, "# Title\n")

    def errors_for(self, text):
        self.write("README.md", text)
        return check_docs.check(self.root)

    def test_fine(self):
        text = "See `src/base/a.h`, `base/`, `Thing`, `-p` and [text](docs/architecture.md).\n\n## Planned\n`Nope`\n"
        self.assertEqual(self.errors_for(text), [])

    def test_missing_things(self):
        for text in ("`src/base/z.h`", "`Nope`", "`Thing::nope`", "`nope()`", "[a](docs/nope.md)",
                     "```sh\nscripts/nope\n```", "```sh\nbuild/release/dspark nope\n```",
                     "## Planned\n`Fine`\n## Today\n`Nope`"):
            self.assertEqual(len(self.errors_for(text + "\n")), 1, text)


if __name__ == "__main__":
    unittest.main()
