#!/usr/bin/env python3
"""Checks that the top level holds what it should and no more. Usage: top_level.py [ROOT]"""

import pathlib
import sys

from source_files import source_files

FOLDERS = {"include", "kernels", "offload", "scheduler", "runtime", "tools", "tests"}
FILES = {"CMakeLists.txt", "README.md", "LICENSE", "CMakePresets.json", "CHANGELOG.md"}


def main(arguments):
    root = pathlib.Path(arguments[0] if arguments else ".").resolve()
    files = source_files(root)
    wrong = set()
    for path in files:
        first = path.parts[0]
        allowed = FILES if len(path.parts) == 1 else FOLDERS
        if not first.startswith(".") and first not in allowed:
            wrong.add(f"{first}: not a name of the top level")
    for folder in FOLDERS:
        if pathlib.Path(folder, "README.md") not in files:
            wrong.add(f"{folder}/README.md: missing; every folder says what it is")
    for line in sorted(wrong):
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
