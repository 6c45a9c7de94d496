#!/usr/bin/env python3
"""Checks who includes whom. Usage: includes.py [ROOT]; prints FILE:LINE: what, exits 1 on any."""

import pathlib
import re
import sys

from source_files import source_files

# A folder may include itself and these.
MAY_INCLUDE = {
    "include": set(),
    "kernels": {"include"},
    "offload": {"include", "kernels"},
    "scheduler": {"include"},
    "runtime": {"include", "kernels", "offload", "scheduler"},
    "tools": {"include", "kernels", "offload", "scheduler", "runtime"},
    "tests": {"include", "kernels", "offload", "scheduler", "runtime", "tools"},
}

# An installed user of the library is no part of the tree: public headers only, as a stranger.
CONSUMER = pathlib.PurePath("tests/architecture/consumer")

C_HEADERS = {"assert.h", "errno.h", "inttypes.h", "limits.h", "stdalign.h", "stdbool.h",
             "stddef.h", "stdint.h"}

# The scheduler decides; threads, clocks and I/O are for others.
NOT_IN_SCHEDULER = {"atomic", "chrono", "condition_variable", "ctime", "filesystem", "fstream",
                    "future", "iostream", "mutex", "semaphore", "shared_mutex", "stop_token",
                    "thread"}

# nvcc takes minutes over these, or fails.
NOT_IN_CUDA = ("asio/", "boost/", "fmt/", "oneapi/", "tbb/")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def folder_of(include):
    """The folder of ours that an include names, or None."""
    first = pathlib.PurePath(include).parts[0]
    if first == "modalkv":
        return "include"
    return first if first in MAY_INCLUDE and first != "include" else None


def wrong_include(path, bracket, target):
    """What is wrong with one include of `path`, or None."""
    folder = path.parts[0]
    theirs = folder_of(target)
    if bracket == "<":
        if theirs and "/" in target:
            return f"<{target}> is ours: include it with quotes"
        if folder == "include" and "/" in target:
            return f"<{target}>: public headers use the standard library only"
        if folder == "include" and target.endswith(".h") and target not in C_HEADERS:
            return f"<{target}>: public headers use the standard library only"
        if folder == "scheduler" and target in NOT_IN_SCHEDULER:
            return f"<{target}>: no threads, no clock, no I/O in scheduler/"
        if path.suffix in (".cu", ".cuh") and target.startswith(NOT_IN_CUDA):
            return f"<{target}>: not in CUDA sources"
        return None
    if theirs is None:
        return f'"{target}": quotes are for paths from the repository root, brackets for others'
    if theirs != folder and theirs not in MAY_INCLUDE[folder]:
        return f'"{target}": {folder}/ may not include {theirs}/'
    if path.is_relative_to(CONSUMER) and theirs != "include":
        return f'"{target}": the consumer sees public headers only'
    return None


def check_file(root, path):
    """Yields (line number, what is wrong)."""
    lines = (root / path).read_text(encoding="utf-8", errors="replace").splitlines()
    if path.suffix in (".hpp", ".cuh", ".h") and "#pragma once" not in lines:
        yield 1, "a header without #pragma once"
    for number, line in enumerate(lines, start=1):
        match = INCLUDE.match(line)
        if not match:
            continue
        bracket, target = match.groups()
        wrong = wrong_include(path, bracket, target)
        if wrong:
            yield number, wrong
        elif bracket == '"':
            base = root / "include" if folder_of(target) == "include" else root
            if not (base / target).is_file():
                yield number, f'"{target}": no such file'


def main(arguments):
    root = pathlib.Path(arguments[0] if arguments else ".").resolve()
    files = [path for path in source_files(root, ".hpp", ".cpp", ".cu", ".cuh", ".h")
             if path.parts[0] in MAY_INCLUDE]
    findings = [(path, number, wrong) for path in files
                for number, wrong in check_file(root, path)]
    for path, number, wrong in findings:
        print(f"{path}:{number}: {wrong}")
    print(f"{len(files)} files, {len(findings)} findings")
    return 1 if findings or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
