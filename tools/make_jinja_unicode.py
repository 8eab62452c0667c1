#!/usr/bin/env python3
"""Prints src/text/jinja_unicode_data.cc: what chat templates need of Unicode, taken from Python's own tables.

Usage: tools/make_jinja_unicode.py > src/text/jinja_unicode_data.cc
"""

import sys
import unicodedata

LIMIT = 0x110000


def characters():
    return (c for c in range(0x80, LIMIT) if not 0xD800 <= c < 0xE000)


def ranges(wanted):
    """[(first, last)] of the characters from U+0080 for which wanted(character) holds."""
    found = []
    for code in range(0x80, LIMIT):
        if not wanted(chr(code)):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def case_runs(convert):
    """(runs, specials): runs [first, last, step, delta] of one-to-one mappings, specials of the longer ones."""
    runs, specials = [], []
    for code in characters():
        to = convert(chr(code))
        if to == chr(code):
            continue
        if len(to) > 1:
            specials.append([code] + [ord(c) for c in to] + [0] * (3 - len(to)))
            continue
        delta = ord(to) - code
        if runs and runs[-1][3] == delta:
            first, last, step, _ = runs[-1]
            if code - last in (1, 2) and (step == 0 or code - last == step):
                runs[-1][1], runs[-1][2] = code, code - last
                continue
        runs.append([code, code, 0, delta])
    return [[a, b, s or 1, d] for a, b, s, d in runs], specials


def title_differences():
    rows = []
    for code in characters():
        char = chr(code)
        if char.title() != char.upper():
            rows.append([code] + [ord(c) for c in char.title()] + [0] * (3 - len(char.title())))
    return rows


def emit(kind, name, rows):
    print(f"const {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        cell = " {" + ", ".join(str(v) if v < 10 else hex(v) for v in row) + "},"
        if len(line) + len(cell) > 110:
            print(line)
            line = "   "
        line += cell
    print(line)
    print("};")
    print(f"const size_t {name}Size = sizeof({name}) / sizeof({name}[0]);")
    print()


def main():
    upper, upper_special = case_runs(str.upper)
    lower, lower_special = case_runs(str.lower)
    print(f"// Made by tools/make_jinja_unicode.py from Unicode {unicodedata.unidata_version}; do not edit.")
    print("// clang-format off")
    print('#include "text/jinja_unicode_data.h"')
    print()
    print("namespace dspark::jinja {")
    print()
    emit("CaseRun", "kUpperRuns", upper)
    emit("CaseSpecial", "kUpperSpecial", upper_special)
    emit("CaseRun", "kLowerRuns", lower)
    emit("CaseSpecial", "kLowerSpecial", lower_special)
    emit("CaseSpecial", "kTitleSpecial", title_differences())
    emit("CodeRange", "kNotPrintable", ranges(lambda c: not c.isprintable()))
    emit("CodeRange", "kAlphabetic", ranges(str.isalpha))
    emit("CodeRange", "kDecimalDigits", ranges(str.isdecimal))
    print("}  // namespace dspark::jinja")


if __name__ == "__main__":
    sys.exit(main())
