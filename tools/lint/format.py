#!/usr/bin/env python3
"""Checks that every C++ and CUDA file is formatted. Usage: format.py [--fix] [ROOT]

Exits 1 on an unformatted file and 77 (skipped) without clang-format 14: other versions lay out
some lines differently.
"""

import pathlib
import re
import shutil
import subprocess
import sys

from source_files import source_files

VERSION = "14"


def clang_format():
    """The right clang-format's name, or None."""
    for name in (f"clang-format-{VERSION}", "clang-format"):
        if shutil.which(name):
            text = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
            if re.search(rf"version {VERSION}\.", text.stdout):
                return name
    return None


def main(arguments):
    fix = "--fix" in arguments
    places = [argument for argument in arguments if argument != "--fix"]
    root = pathlib.Path(places[0] if places else ".").resolve()
    program = clang_format()
    if program is None:
        print(f"clang-format {VERSION} is not installed: formatting is not checked")
        return 77
    files = source_files(root, ".hpp", ".cpp", ".cu", ".cuh", ".h")
    if not files:
        print(f"{root}: no sources found")
        return 1
    action = ["-i"] if fix else ["--dry-run", "-Werror"]
    result = subprocess.run([program, "--style=file", *action, *map(str, files)], cwd=root,
                            check=False)
    print(f"{len(files)} files" + ("" if result.returncode == 0 else
                                   ": run tools/lint/format.py --fix"))
    return 1 if result.returncode else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
