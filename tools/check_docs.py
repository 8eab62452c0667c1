#!/usr/bin/env python3
"""Checks that the documents speak about what exists.

README.md, CONTRIBUTING.md, SECURITY.md and docs/: every path in a code span exists; every C++ name in a code
span (Type, function(), Type::member) occurs in the code. Sections whose heading says "planned" are left out.
Shell blocks: programs under scripts/, tools/, bench/ exist, and `dspark` subcommands have a source file.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/cli.md",
             "docs/benchmarks.md")  # these must exist; every other page in docs/ is checked too
CODE_FOLDERS = ("src", "include", "tests", "tools", "bench", "fuzz", "scripts", "cmake")
# Made by a build or by a fetch, so absent from a fresh clone.
GENERATED = ("build/", "models/cache/", "bench/out/", "bench/.venv")


def code_words(root):
    words = set()
    for folder in CODE_FOLDERS:
        for path in (root / folder).rglob("*"):
            if path.suffix in (".h", ".hpp", ".cc", ".py", ".txt", ".cmake") and "data" not in path.parts:
                words.update(re.findall(r"\w+", path.read_text(encoding="utf-8", errors="replace")))
    return words


def without_planned(text):
    """The text without sections whose heading contains the word planned."""
    kept, skip_level = [], 0
    for line in text.splitlines():
        heading = re.match(r"(#+) ", line)
        if heading:
            level = len(heading.group(1))
            if skip_level and level <= skip_level:
                skip_level = 0
            if not skip_level and re.search(r"\bplanned\b", line, re.IGNORECASE):
                skip_level = level
        kept.append("" if skip_level else line)
    return "\n".join(kept)


def split_blocks(text):
    """(text without fenced blocks, shell blocks)."""
    shell = re.findall(r"^```(?:sh|shell|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), shell


def path_exists(root, path):
    if path.startswith(GENERATED) or path.rstrip("/") + "/" in GENERATED:
        return True
    if "/" not in path and any(next((root / folder).rglob(path), None) for folder in CODE_FOLDERS):
        return True  # a bare file name: the page says elsewhere which folder it speaks about
    bases = (root, root / "src", root / "docs", root / "include")
    if any(char in path for char in "*<{"):
        pattern = re.sub(r"<[^>]*>|\{[^}]*\}", "*", path)
        return any(next(base.glob(pattern), None) for base in bases)
    return any((base / path).exists() for base in bases)


def check_span(root, span, words):
    """None when fine, else what is wrong."""
    if re.fullmatch(r"[\w.<>*{},-]+(/[\w.<>*{},-]*)+|[\w-]+\.(h|cc|md|py|txt|json|cmake)", span):
        return None if path_exists(root, span) else f"no such path: {span}"
    name = re.fullmatch(r"((?:[A-Za-z_]\w*::)*[A-Za-z_]\w*)(\(.*\))?", span)
    is_name = name and ("::" in span or name.group(2) or re.match(r"k?[A-Z]\w*[a-z]", span))
    if is_name:
        for part in name.group(1).split("::"):
            if part not in ("std", "dspark") and part not in words:
                return f"no such name in the code: {span}"
    return None


def check_shell(root, block):
    errors = []
    for line in block.replace("\\\n", " ").splitlines():
        for word in re.findall(r"(?:^|[\s;&|(])((?:\./)?(?:scripts|tools|bench|\.ci)/[\w.-]+)", line):
            if not word.startswith(tuple(path.rstrip("/") for path in GENERATED)) and not (root / word).exists():
                errors.append(f"shell block runs {word}, which does not exist")
        for command in re.findall(r"(?:^|[\s/])dspark ([a-z]\w*)", line):
            if not (root / "src" / "cli" / f"cmd_{command}.cc").exists():
                errors.append(f"shell block uses `dspark {command}`, which has no source file")
    return errors


def check(root):
    words = code_words(root)
    errors = []
    others = sorted(f"docs/{path.name}" for path in (root / "docs").glob("*.md"))
    for name in [*DOCUMENTS, *(name for name in others if name not in DOCUMENTS)]:
        if not (root / name).is_file():
            errors.append(f"{name}: missing")
            continue
        prose, shell = split_blocks(without_planned((root / name).read_text(encoding="utf-8")))
        for block in shell:
            errors += [f"{name}: {error}" for error in check_shell(root, block)]
        for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose):
            error = check_span(root, span, words)
            if error:
                errors.append(f"{name}: {error}")
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose):
            if not ((root / name).parent / target).exists():
                errors.append(f"{name}: link to {target}, which does not exist")
    return errors


def main():
    errors = check(ROOT)
    for error in errors:
        print(error)
    print(f"check_docs: {len(errors)} problem(s)" if errors else "check_docs: documents and code agree")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
