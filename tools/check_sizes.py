#!/usr/bin/env python3
"""Prints how long files and functions are, and fails when one is too long.

Files: 500 lines is the aim, 800 the limit. Functions: 60 is the aim, 100 the limit that at most 1 % may pass.
Functions are found by their braces at namespace or class level, which is exact enough for formatted code.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_AIM, FILE_LIMIT = 500, 800
FUNCTION_AIM, FUNCTION_LIMIT, FUNCTION_SHARE = 60, 100, 0.01
FOLDERS = ("src", "include", "tests", "bench", "fuzz", "tools", "scripts")


def blank(match):
    """Same number of lines, no content."""
    return "\n" * match.group(0).count("\n")


def plain_code(text):
    """The text without comments, preprocessor lines and the insides of literals."""
    text = re.sub(r'R"(\w*)\(.*?\)\1"', blank, text, flags=re.DOTALL)
    text = re.sub(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', blank, text, flags=re.DOTALL)
    text = re.sub(r"(?<![\w])'(?:\\.[^']*|[^'\\\n])'", "0", text)
    return re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", blank, text, flags=re.MULTILINE)


def functions_of(text):
    """[(name, first line, number of lines)] of the functions defined in C++ text."""
    found = []
    scopes = []  # "outer" (namespace, class), ("function", name, line) or "inner"
    head_start = 0
    line = 1
    code = plain_code(text)
    for at, char in enumerate(code):
        if char == "\n":
            line += 1
        elif char == "{":
            head = code[head_start:at]
            if any(scope != "outer" for scope in scopes):
                scopes.append("inner")
            elif "(" in head and not re.search(r"=\s*$", head):
                name = re.search(r"([\w:~]+|operator\S+)\s*\(", head)
                start = line - head.strip().count("\n")
                scopes.append(("function", name.group(1) if name else "?", start))
            elif re.search(r"\b(namespace|class|struct|union|extern)\b", head):
                scopes.append("outer")
            else:
                scopes.append("inner")
            head_start = at + 1
        elif char == "}":
            scope = scopes.pop() if scopes else "outer"
            if isinstance(scope, tuple):
                found.append((scope[1], scope[2], line - scope[2] + 1))
            head_start = at + 1
        elif char == ";":
            head_start = at + 1
    return found


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def survey(root):
    files, functions = [], []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if "/tests/data/" in path.as_posix() or "/bench/.venv/" in path.as_posix() or not path.is_file():
                continue
            if path.suffix in (".cc", ".h", ".hpp", ".py", ".c") or folder == "scripts":
                text = path.read_text(encoding="utf-8")
                name = path.relative_to(root)
                files.append((len(text.splitlines()), name))
                if path.suffix in (".cc", ".h", ".hpp"):
                    functions += [(size, f"{name}:{line} {function}") for function, line, size in functions_of(text)]
    return files, functions


def main():
    files, functions = survey(ROOT)
    print(f"{'':10} {'count':>6} {'median':>7} {'p90':>6} {'max':>6}")
    for label, rows in (("files", files), ("functions", functions)):
        sizes = [size for size, _ in rows]
        print(f"{label:10} {len(sizes):6} {percentile(sizes, 0.5):7} {percentile(sizes, 0.9):6} {max(sizes, default=0):6}")
    for size, name in sorted(files, reverse=True):
        if size > FILE_AIM:
            print(f"{'TOO LONG' if size > FILE_LIMIT else 'long'}: {name}: {size} lines")
    for size, name in sorted(functions, reverse=True):
        if size > FUNCTION_AIM:
            print(f"long: {name}: {size} lines")
    above = sum(size > FUNCTION_LIMIT for size, _ in functions)
    bad = [name for size, name in files if size > FILE_LIMIT]
    if above > max(1, FUNCTION_SHARE * len(functions)):
        print(f"check_sizes: {above} functions above {FUNCTION_LIMIT} lines, at most {FUNCTION_SHARE:.0%} may be")
        return 1
    print(f"check_sizes: {len(bad)} file(s) above {FILE_LIMIT} lines" if bad else "check_sizes: within the limits")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
