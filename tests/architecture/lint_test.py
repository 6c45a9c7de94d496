"""Plants each fault that the lints exist for in a tree of its own; each must be caught."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINT = ROOT / "tools" / "lint"
FOLDERS = ("include", "kernels", "offload", "scheduler", "runtime", "tools", "tests")

CLEAN = {
    "include/modalkv/page.hpp": "#pragma once\n#include <cstdint>\n",
    "kernels/encode.hpp": '#pragma once\n#include "modalkv/page.hpp"\n',
    "offload/pool.cpp": '#include <fmt/core.h>\n\n#include "kernels/encode.hpp"\n',
    "scheduler/planner.hpp": '#pragma once\n#include <vector>\n#include "modalkv/page.hpp"\n',
    "runtime/replay.hpp": '#pragma once\n#include "scheduler/planner.hpp"\n',
    "tests/runtime/replay_test.cpp": '#include "runtime/replay.hpp"\n',
}


def lint(script, files):
    """Exit code and output of a lint over a tree of `files`, a path to its text."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        result = subprocess.run([sys.executable, str(LINT / script), str(root)],
                                capture_output=True, text=True, check=False)
        return result.returncode, result.stdout + result.stderr


class Includes(unittest.TestCase):
    def caught(self, path, text, message):
        code, output = lint("includes.py", {**CLEAN, path: text})
        self.assertEqual(code, 1, output)
        self.assertIn(f"{path}:", output)
        self.assertIn(message, output)
        self.assertIn("1 findings", output)

    def test_clean_tree_passes(self):
        code, output = lint("includes.py", CLEAN)
        self.assertEqual(code, 0, output)

    def test_empty_tree_fails(self):
        self.assertEqual(lint("includes.py", {"README.md": ""})[0], 1)

    def test_upward_includes(self):
        for folder, target in (("kernels", "runtime/replay.hpp"),
                               ("offload", "scheduler/planner.hpp"),
                               ("scheduler", "kernels/encode.hpp"),
                               ("runtime", "tests/runtime/replay_test.cpp"),
                               ("include", "kernels/encode.hpp")):
            with self.subTest(folder=folder):
                self.caught(f"{folder}/bad.cpp", f'#include "{target}"\n',
                            f"{folder}/ may not include")

    def test_public_headers_use_the_standard_library_only(self):
        for target in ("fmt/core.h", "cuda_runtime_api.h", "hwloc.h"):
            with self.subTest(target=target):
                self.caught("include/modalkv/bad.hpp", f"#pragma once\n#include <{target}>\n",
                            "standard library only")

    def test_scheduler_has_no_threads_clock_or_io(self):
        for target in ("thread", "chrono", "fstream"):
            with self.subTest(target=target):
                self.caught("scheduler/bad.cpp", f"#include <{target}>\n", "no threads, no clock")

    def test_cuda_sources_stay_lean(self):
        for target in ("fmt/core.h", "boost/asio.hpp", "tbb/parallel_for.h"):
            with self.subTest(target=target):
                self.caught("offload/cuda/bad.cu", f"#include <{target}>\n", "not in CUDA sources")

    def test_spelling(self):
        self.caught("runtime/bad.cpp", "#include <modalkv/page.hpp>\n", "with quotes")
        self.caught("runtime/bad.cpp", '#include "replay.hpp"\n', "from the repository root")
        self.caught("runtime/bad.cpp", '#include "../runtime/replay.hpp"\n', "repository root")
        self.caught("runtime/bad.cpp", '#include "runtime/gone.hpp"\n', "no such file")
        self.caught("runtime/bad.cpp", '  #  include "tools/x.hpp"\n', "may not include")

    def test_pragma_once(self):
        self.caught("runtime/bad.hpp", "#include <vector>\n", "#pragma once")

    def test_consumer_is_a_stranger(self):
        self.caught("tests/architecture/consumer/main.cpp", '#include "runtime/replay.hpp"\n',
                    "public headers only")


class TopLevel(unittest.TestCase):
    TREE = {f"{folder}/README.md": "" for folder in FOLDERS} | {"LICENSE": "", ".gitignore": ""}

    def test_clean(self):
        code, output = lint("top_level.py", self.TREE)
        self.assertEqual(code, 0, output)

    def test_stray_names(self):
        for path in ("notes.txt", "src/main.cpp", "cmake/x.cmake"):
            with self.subTest(path=path):
                code, output = lint("top_level.py", {**self.TREE, path: ""})
                self.assertEqual(code, 1)
                self.assertIn(path.split("/")[0], output)

    def test_folder_without_readme(self):
        tree = {path: text for path, text in self.TREE.items() if path != "offload/README.md"}
        code, output = lint("top_level.py", tree)
        self.assertEqual(code, 1)
        self.assertIn("offload/README.md", output)


class Format(unittest.TestCase):
    STYLE = {".clang-format": (ROOT / ".clang-format").read_text(encoding="utf-8")}

    def test_unformatted_file_is_caught(self):
        code, output = lint("format.py", {**self.STYLE, "runtime/bad.cpp": "int  x ;\n"})
        if code == 77:
            self.skipTest(output)
        self.assertEqual(code, 1, output)
        self.assertIn("bad.cpp", output)

    def test_formatted_file_passes(self):
        code, output = lint("format.py", {**self.STYLE, "runtime/good.cu": "int x;\n"})
        if code == 77:
            self.skipTest(output)
        self.assertEqual(code, 0, output)


if __name__ == "__main__":
    unittest.main()
