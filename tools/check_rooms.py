#!/usr/bin/env python3
"""Checks that every room (folder under src/) includes only rooms that docs/architecture.md lets it know.

The table there names for each room what it uses directly; what those may use is allowed too. Also checked:
rooms form no cycle, headers outside cli keep heavy headers out, and library rooms neither print nor end the
process.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)
HEAVY = re.compile(r"^(nlohmann/json\.hpp|fmt/|CLI/|pcre2\.h|iostream)")
# std::print-like calls and process ends; snprintf and friends write to memory and are fine.
LOUD = re.compile(r"(?<![\w])(?:std::)?(?:cout|cerr|printf|fprintf|puts|perror|abort|_?exit|quick_exit|terminate)\s*(?:\(|<<)")


def read_table(text):
    """Rows `| \\`room/\\` | holds | uses |` -> {room: set of rooms}."""
    table = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        name = re.fullmatch(r"`(\w+)/`", cells[0]) if len(cells) == 3 else None
        if name:
            table[name.group(1)] = set() if cells[2] == "nothing" else set(re.split(r"[,\s]+", cells[2]))
    return table


def close_over(table):
    """Adds to every room what its rooms may use. Raises ValueError for a cycle or an unknown room."""
    closed = {}

    def visit(room, path):
        if room in path:
            raise ValueError("rooms form a cycle: " + " -> ".join(path + [room]))
        if room not in table:
            raise ValueError(f"room '{room}', used by '{path[-1]}', has no row in the table")
        if room not in closed:
            uses = set(table[room])
            for other in table[room]:
                uses |= visit(other, path + [room])
            closed[room] = uses
        return closed[room]

    for room in table:
        visit(room, [])
    return closed


def strip_comments_keeping_lines(text):
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match.group(0).count("\n"), text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)


def check_file(path, room, allowed, rooms, where):
    text = path.read_text(encoding="utf-8")
    errors = []
    for _, target in INCLUDE.findall(text):
        other = target.split("/")[0]
        if other in rooms and other != room and other not in allowed:
            errors.append(f"{where}: {room} may not include {target}")
        if room != "cli" and path.suffix == ".h" and HEAVY.match(target):
            errors.append(f"{where}: header includes <{target}>; keep it in a .cc file")
    if room != "cli":
        for number, line in enumerate(strip_comments_keeping_lines(text).splitlines(), 1):
            if LOUD.search(re.sub(r'"(\\.|[^"\\])*"', '""', line)):
                errors.append(f"{where}:{number}: library code neither prints nor ends the process: {line.strip()}")
    return errors


def check_links(room, allowed, cmake):
    """dspark_room(... LINKS dspark_x ...) may name only allowed rooms."""
    errors = []
    for call in re.findall(r"dspark_room\((.*?)\)", cmake.read_text(encoding="utf-8"), re.DOTALL):
        links = call.partition("LINKS")[2]
        for other in re.findall(r"\bdspark_(\w+)", links):
            if other not in allowed:
                errors.append(f"src/{room}/CMakeLists.txt: {room} may not link dspark_{other}")
    return errors


def check(root):
    table = read_table((root / "docs" / "architecture.md").read_text(encoding="utf-8"))
    if len(table) < 2:
        return ["docs/architecture.md: no table of rooms found"]
    try:
        allowed = close_over(table)
    except ValueError as error:
        return [f"docs/architecture.md: {error}"]
    errors = []
    for folder in sorted(path for path in (root / "src").iterdir() if path.is_dir()):
        room = folder.name
        if room not in table:
            errors.append(f"src/{room}: no row in the table of docs/architecture.md")
            continue
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".h", ".cc"):
                errors += check_file(path, room, allowed[room], table, path.relative_to(root))
        if (folder / "CMakeLists.txt").is_file():
            errors += check_links(room, allowed[room], folder / "CMakeLists.txt")
    return errors


def main():
    errors = check(ROOT)
    for error in errors:
        print(error)
    print(f"check_rooms: {len(errors)} problem(s)" if errors else "check_rooms: every room keeps to its row")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
