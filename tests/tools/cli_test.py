"""Drives the program with bad input: one line that says what to do, a failure, nothing left behind.

Usage: cli_test.py PROGRAM [unittest arguments]
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = ""
GOOD = ('{"timestamp": 0, "input_length": 100, "output_length": 5}\n'
        '{"timestamp": 10, "input_length": 700, "output_length": 5, "image_tokens": [576]}\n'
        '{"timestamp": 20, "input_length": 700, "output_length": 9, "image_tokens": [576]}\n')
CSV = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n"
FAILED, USAGE = 1, 2


def row(**fields):
    return json.dumps({"timestamp": 30, "input_length": 10, "output_length": 5, **fields}) + "\n"


def spread(name, unit=""):
    return {f"{name}_{statistic}{unit}" for statistic in ("median", "p10", "p90")}


class Cli(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.trace = self.file("good.jsonl", GOOD)
        self.out = self.root / "out"

    def file(self, name, text):
        path = self.root / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def modalkv(self, *arguments, **options):
        return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True,
                              check=False, timeout=60, **options)

    def simulate(self, trace, *arguments):
        return self.modalkv("simulate", "--trace", trace, "--policy", "fp16-resident,text-centric",
                            "--out", self.out, *arguments)

    def assert_fails(self, result, *parts, code=FAILED):
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertTrue(result.stderr.startswith("modalkv: error: "), result.stderr)
        self.assertTrue(result.stderr.endswith("\n"))
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)
        self.assertFalse(self.out.exists(), "a failed run left an output folder")
        left = [name for name in os.listdir(self.root) if "partial" in name]
        self.assertEqual(left, [], "a failed run left its staging folder")


class GoodInput(Cli):
    FILES = {"summary.json", "requests.csv", "timeline.json", "report.html"}

    def test_writes_every_file(self):
        result = self.simulate(self.trace)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr, "")
        self.assertEqual(set(os.listdir(self.out)), self.FILES)
        self.assertEqual(set(os.listdir(self.root)), {"good.jsonl", "out"})
        self.assertIn("text-centric", result.stdout)

    def test_an_empty_out_is_not_no_out(self):
        result = self.modalkv("simulate", "--trace", self.trace, "--out", "")
        self.assert_fails(result, "--out", "expected a folder", code=USAGE)

    def test_json_is_the_summary_and_nothing_else(self):
        result = self.simulate(self.trace, "--json")
        printed = json.loads(result.stdout)
        written = json.loads((self.out / "summary.json").read_text())
        self.assertEqual(printed["digest"], written["digest"])
        self.assertEqual([policy["policy"] for policy in printed["policies"]],
                         ["fp16-resident", "text-centric"])

    def test_quiet_prints_nothing(self):
        result = self.simulate(self.trace, "--quiet")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))

    def test_help_and_version(self):
        for arguments in (["--help"], ["simulate", "--help"], ["--version"]):
            result = self.modalkv(*arguments)
            self.assertEqual((result.returncode, result.stderr), (0, ""), arguments)

    def test_crlf_byte_order_mark_and_missing_last_newline(self):
        text = "\ufeff" + GOOD.replace("\n", "\r\n").rstrip()
        result = self.modalkv("trace", "stats", self.file("dos.jsonl", text), "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(json.loads(result.stdout)["requests"], 3)


class BadTraces(Cli):
    def test_missing_file(self):
        self.assert_fails(self.simulate(self.root / "none.jsonl"), "none.jsonl", "No such file")

    def test_message_is_one_line_whatever_the_file_is_called(self):
        self.assert_fails(self.simulate(self.root / "two\nlines.jsonl"), "two lines.jsonl")

    def test_folder(self):
        self.assert_fails(self.simulate(self.root), "folder")

    def test_read_error_is_not_the_end_of_the_file(self):
        memory = pathlib.Path("/proc/self/mem")  # opens; its first byte cannot be read
        if not memory.exists():
            self.skipTest("no /proc/self/mem here")
        self.assert_fails(self.simulate(memory), "/proc/self/mem: cannot be read: ")

    def test_empty_file(self):
        self.assert_fails(self.simulate(self.file("empty.jsonl", "")), "empty.jsonl", "empty")
        self.assert_fails(self.simulate(self.file("header.csv", CSV.split("\n")[0] + "\n")),
                          "no requests")
        self.assert_fails(self.simulate(self.file("blank.jsonl", "\n\n")))

    def test_unknown_format(self):
        for text in ("hello\n", "a,b,c\n1,2,3\n", "[1, 2]\n", '{"x": 1}\n', b"\x00\xff\x00\n"):
            with self.subTest(text=text):
                self.assert_fails(self.simulate(self.file("what.txt", text)), "what.txt:1:",
                                  "unknown trace format", "azure-llm")
        self.assert_fails(self.simulate(self.trace, "--format", "parquet"), "parquet", "mooncake")

    def test_format_that_the_file_is_not(self):
        self.assert_fails(self.simulate(self.trace, "--format", "azure-llm"), "good.jsonl:1:")
        self.assert_fails(self.simulate(self.file("a.csv", CSV), "--format", "modalkv"), "a.csv:1:")

    def test_torn_last_line(self):
        for cut in (1, 5, 20, 40):
            with self.subTest(cut=cut):
                torn = GOOD.rstrip()[:-cut]
                self.assert_fails(self.simulate(self.file("torn.jsonl", torn)), "torn.jsonl:3:")
        self.assert_fails(self.simulate(self.file("torn.csv", CSV + "2023-11-16 18:1")),
                          "torn.csv:3:")

    def test_bad_counts(self):
        for field in ("input_length", "output_length"):
            for value in ("-1", "0", "1e300", "99999999999999999999", "1.5", '"7"', "null", "true",
                          "NaN", "Infinity", "[]"):
                with self.subTest(field=field, value=value):
                    bad = row(**{field: "@"}).replace('"@"', value)
                    self.assert_fails(self.simulate(self.file("bad.jsonl", GOOD + bad)),
                                      "bad.jsonl:4:")
        for value in ("-5", "abc", "", "nan", "1e9", "99999999999999999999"):
            with self.subTest(csv=value):
                bad = f"2023-11-16 18:17:04.0000000,{value},8\n"
                self.assert_fails(self.simulate(self.file("bad.csv", CSV + bad)), "bad.csv:3:")

    def test_images_that_do_not_add_up(self):
        for images in ([11], [-1], [5, 6], [0], ["x"], [10**19]):
            with self.subTest(images=images):
                self.assert_fails(
                    self.simulate(self.file("bad.jsonl", GOOD + row(image_tokens=images))),
                    "bad.jsonl:4:", "image_tokens")

    def test_bad_times(self):
        for value in ("NaN", "-1", "1e300", "Infinity", '"now"', "null"):
            with self.subTest(value=value):
                bad = row(timestamp="@").replace('"@"', value)
                self.assert_fails(self.simulate(self.file("bad.jsonl", GOOD + bad)), "bad.jsonl:4:")
        for value in ("nan", "2023-13-01 00:00:00", "2023-02-30 00:00:00", "yesterday", ""):
            with self.subTest(csv=value):
                self.assert_fails(self.simulate(self.file("bad.csv", CSV + f"{value},7,8\n")),
                                  "bad.csv:3:")

    def test_times_out_of_order(self):
        self.assert_fails(self.simulate(self.file("bad.jsonl", GOOD + row(timestamp=5))),
                          "bad.jsonl:4:", "timestamp", "before the row above")

    def test_unknown_missing_and_repeated_fields(self):
        self.assert_fails(self.simulate(self.file("a.jsonl", GOOD + row(inptu=3))), "inptu")
        self.assert_fails(self.simulate(self.file("b.jsonl", GOOD + '{"timestamp": 30}\n')),
                          "b.jsonl:4:", "input_length")
        twice = row().replace("}", ', "output_length": 6}')
        self.assert_fails(self.simulate(self.file("c.jsonl", GOOD + twice)), "twice")

    def test_control_characters_stay_out_of_the_message(self):
        bad = b'{"timestamp": 1, "input_length": \x1b[31m\n'
        result = self.simulate(self.file("bad.jsonl", GOOD.encode() + bad))
        self.assert_fails(result, "bad.jsonl:4:")
        self.assertNotIn("\x1b", result.stderr)

    def test_skip_bad_rows_goes_on_and_counts(self):
        bad = "torn {\n" + row(output_length=-1) + row(timestamp=1)
        trace = self.file("bad.jsonl", GOOD + bad + row())
        result = self.simulate(trace, "--skip-bad-rows")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("3 bad rows of the trace were left out", result.stdout)
        summary = json.loads((self.out / "summary.json").read_text())
        self.assertEqual(summary["trace"]["skipped_rows"], 3)
        self.assertEqual(summary["trace"]["requests"], 4)
        self.assertEqual(summary["policies"][0]["completed"], 4)

    def test_skip_bad_rows_does_not_make_something_of_nothing(self):
        self.assert_fails(
            self.simulate(self.file("bad.jsonl", row(output_length=0) * 3), "--skip-bad-rows"),
            ":1: ", "none of the 3 rows")


class Interrupted(Cli):
    def test_leaves_nothing_behind_and_dies_of_the_signal(self):
        long = self.root / "long.jsonl"
        made = self.modalkv("trace", "generate", "--requests", 100_000, "--out", long)
        self.assertEqual(made.returncode, 0, made.stderr)
        for ending in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=ending):
                process = subprocess.Popen(
                    [PROGRAM, "simulate", "--trace", long, "--threads", "1", "--out", self.out],
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                while process.poll() is None and not list(self.root.glob("*partial*")):
                    time.sleep(0.01)
                process.send_signal(ending)
                printed, errors = process.communicate(timeout=60)
                self.assertEqual(process.returncode, -ending, errors)
                self.assertEqual(printed, b"")
                self.assertEqual(set(os.listdir(self.root)), {"good.jsonl", "long.jsonl"})


class BadOptions(Cli):
    def test_unknown_names(self):
        self.assert_fails(self.simulate(self.trace, "--model", "llava-9"), "llava-9", "nearest")
        self.assert_fails(self.simulate(self.trace, "--hardware", "rtx-4091"), "rtx-4091",
                          "rtx-4090")
        self.assert_fails(
            self.modalkv("simulate", "--trace", self.trace, "--policy", "magic", "--out", self.out),
            "magic", "text-centric")

    def test_model_that_does_not_fit_the_gpu(self):
        self.assert_fails(
            self.simulate(self.trace, "--model", "qwen2.5-vl-72b", "--hardware", "l4"),
            "qwen2.5-vl-72b does not fit l4")

    def test_profiles_that_are_none(self):
        self.assert_fails(self.simulate(self.trace, "--model", self.root / "none.json"),
                          "none.json")
        for option in ("--model", "--hardware"):
            for text in ("", "{", "[]", "{}", '{"name": "x", "surprise": 1}'):
                with self.subTest(option=option, text=text):
                    self.assert_fails(
                        self.simulate(self.trace, option, self.file("bad.json", text)), "bad.json")

    def test_unwritable_output(self):
        self.out.write_text("a file")
        result = self.simulate(self.trace)
        self.assertEqual(result.returncode, FAILED)
        self.assertEqual(self.out.read_text(), "a file")
        self.out.unlink()
        self.assert_fails(result, "out: cannot be written")
        self.out = pathlib.Path("/proc/modalkv-out")
        self.assert_fails(self.simulate(self.trace), "/proc/modalkv-out: cannot be written")

    def test_values_out_of_range(self):
        for option, values in {"--rate-scale": ("0", "-1", "nan", "inf", "x", "1,nan"),
                               "--memory-utilization": ("0", "1.5", "nan"),
                               "--perturb": ("-0.1", "1", "nan"),
                               "--max-sequences": ("0", "-3", "1.5"),
                               "--max-step-tokens": ("0", "99999999999"),
                               "--threads": ("0", "x"),
                               "--limit": ("0", "-1"),
                               "--trace-window": ("1", "nan,1", "0,-1"),
                               "--admission": ("never",),
                               "--image-tokens": ("guess",)}.items():
            for value in values:
                with self.subTest(option=option, value=value):
                    self.assert_fails(self.simulate(self.trace, option, value), option, code=USAGE)

    def test_objectives(self):
        for value in ("ttft=abc", "ttft=-1", "ttft=nan", "ttft", "speed=3s", "ttft=5h", "ttft=",
                      "ttft=1s,ttft=2s"):
            with self.subTest(value=value):
                self.assert_fails(self.simulate(self.trace, "--slo", value), "--slo")

    def test_usage(self):
        self.assert_fails(self.modalkv(), code=USAGE)
        self.assert_fails(self.modalkv("fly"), code=USAGE)
        self.assert_fails(self.modalkv("simulate"), "--trace is required", code=USAGE)
        self.assert_fails(self.simulate(self.trace, "--bogus"), "--bogus", code=USAGE)
        self.assert_fails(self.modalkv("trace"), code=USAGE)

    def test_full_standard_output(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        for arguments in (["simulate", "--trace", self.trace], ["trace", "stats", self.trace],
                          ["inspect", "models"]):
            with self.subTest(arguments=arguments), open("/dev/full", "w", encoding="utf-8") as full:
                result = subprocess.run([PROGRAM, *map(str, arguments)], stdout=full, text=True,
                                        stderr=subprocess.PIPE, check=False, timeout=60)
                self.assertEqual(result.returncode, FAILED, result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                self.assertTrue(result.stderr.startswith("modalkv: error: "), result.stderr)


class TraceCommand(Cli):
    def test_generate_and_convert_fail_in_one_line(self):
        target = self.root / "none" / "x.jsonl"
        self.assert_fails(self.modalkv("trace", "generate", "--requests", 5, "--out", target),
                          "x.jsonl: cannot be written")
        self.assert_fails(self.modalkv("trace", "convert", self.trace, target), "cannot be written")
        self.assert_fails(
            self.modalkv("trace", "generate", "--workload", "x", "--out", self.root / "y"), "'x'")
        for option, value in (("--rate", "nan"), ("--rate", "0"), ("--requests", "0"),
                              ("--image-share", "1.1"), ("--arrival-cv", "nan")):
            with self.subTest(option=option, value=value):
                self.assert_fails(self.modalkv("trace", "generate", "--out", self.root / "y",
                                               option, value), option, code=USAGE)
        self.assertEqual(os.listdir(self.root), ["good.jsonl"])

    def test_what_is_generated_can_be_simulated(self):
        trace = self.root / "made.jsonl"
        made = self.modalkv("trace", "generate", "--requests", 20, "--out", trace)
        self.assertEqual(made.returncode, 0, made.stderr)
        result = self.simulate(trace, "--json")
        self.assertEqual(json.loads(result.stdout)["trace"]["requests"], 20)

    def test_eviction_compares_every_order_at_every_capacity(self):
        trace = self.root / "made.jsonl"
        self.modalkv("trace", "generate", "--requests", 200, "--image-pool", 20, "--out", trace)
        result = self.modalkv("trace", "eviction", trace, "--capacity", "5,100", "--reload-by",
                              "recompute")
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines() if "%" in line]
        orders = ["lru", "tiny-lfu", "cost-aware", "farthest next use", "bound"]
        self.assertEqual([row[2] for row in rows], 2 * orders)
        self.assertTrue(all(float(row[-1]) > 0 for row in rows[:3]), rows)
        self.assertEqual([row[-1] for row in rows[5:]], ["0.00"] * 5)

    def test_eviction_refuses_what_it_cannot_do(self):
        for option, value in (("--capacity", "0"), ("--capacity", "nan"), ("--reload-by", "magic")):
            with self.subTest(option=option, value=value):
                self.assert_fails(self.modalkv("trace", "eviction", self.trace, option, value),
                                  option, code=USAGE)
        self.assert_fails(self.modalkv("trace", "eviction", self.trace, "--policy", "magic"), "magic")
        self.assert_fails(self.modalkv("trace", "eviction", self.root / "none"), "none")


class Bench(Cli):
    """That measurements run and say all they should; how fast anything was decides nothing."""

    TIMES = {"schema_version", "command_line", "host_cpu", "last_level_cache_bytes", "threads",
             "operation", "bytes_per_run", "runs", "median_ms", "p10_ms", "p90_ms", "min_ms",
             "gigabytes_per_second", "read_ceiling_gigabytes_per_second", "read_ceiling_loop",
             "copy_ceiling_gigabytes_per_second", "dot_product_peak_gflops",
             "dot_product_peak_8bit_gops", "fraction_of_read_ceiling", "rotated_copies", "seed"}
    ATTENTION = TIMES | {"tokens", "q_heads", "kv_heads", "head_dim", "format", "kernel_target",
                         "fraction_of_dot_product_peak", "measured_error", "measured_error_heads",
                         "distinct_pages", "batch", "tokens_of_shortest_sequence",
                         "tokens_of_longest_sequence"}
    SMALL = ["--q-heads", 4, "--kv-heads", 2, "--head-dim", 64, "--tokens", 300, "--runs", 2]

    def bench(self, *arguments):
        result = self.modalkv("bench", *arguments, "--json")
        self.assertEqual((result.returncode, result.stderr), (0, ""), arguments)
        return json.loads(result.stdout)

    def assert_times(self, report, runs):
        self.assertEqual(report["runs"], runs)
        self.assertLessEqual(report["min_ms"], report["p10_ms"])
        self.assertLessEqual(report["p10_ms"], report["median_ms"])
        self.assertLessEqual(report["median_ms"], report["p90_ms"])
        self.assertGreater(report["min_ms"], 0)
        self.assertAlmostEqual(report["gigabytes_per_second"] * report["median_ms"],
                               report["bytes_per_run"] / 1e6, delta=report["bytes_per_run"] / 1e8)
        for key in ("read_ceiling_gigabytes_per_second", "copy_ceiling_gigabytes_per_second",
                    "dot_product_peak_gflops", "dot_product_peak_8bit_gops",
                    "fraction_of_read_ceiling"):
            self.assertGreater(report[key], 0, key)

    def test_attention_is_right_in_every_format(self):
        for name, bound in {"fp16": 0.001, "bf16": 0.001, "fp8": 0.005, "int8": 0.005,
                            "int8-head-int4-g32": 0.015, "int4": 0.015, "int4-channel": 0.015,
                            "int2-g32": 0.015, "nvfp4": 0.015, "mxfp4": 0.015}.items():
            with self.subTest(format=name):
                report = self.bench("attention", "--format", name, *self.SMALL)
                self.assertLessEqual(self.ATTENTION - set(report), set())
                self.assert_times(report, 2)
                self.assertLessEqual(report["measured_error"], bound)
                self.assertGreater(report["measured_error"], 0)
                self.assertEqual((report["tokens"], report["format"]), (300, name))
                self.assertEqual(report["measured_error_heads"], 4)
        # 300 tokens: 4 pages of 64 and 3 of the last one's 4 tiles; 2 heads of 64 + 64 elements.
        fp16 = self.bench("attention", "--format", "fp16", *self.SMALL)
        self.assertEqual(fp16["bytes_per_run"], 304 * 2 * 128 * 2)

    def test_attention_over_a_mix_and_a_batch(self):
        report = self.bench("attention", "--format", "fp16:0.25,int4:0.75", "--batch", 3,
                            "--input", "bf16", *self.SMALL)
        self.assertLessEqual(self.ATTENTION - set(report), set())
        self.assertLessEqual(report["measured_error"], 0.015)
        self.assertEqual(report["tokens_of_shortest_sequence"], 200)
        self.assertEqual(report["tokens_of_longest_sequence"], 400)
        self.assertEqual([part["format"] for part in report["parts"]], ["fp16", "int4"])
        self.assertEqual([part["tokens"] for part in report["parts"]], [225, 675])
        self.assertEqual(sum(part["bytes_per_run"] for part in report["parts"]),
                         report["bytes_per_run"])
        self.assertAlmostEqual(report["sum_of_parts_ms"],
                               sum(part["median_ms"] for part in report["parts"]))

    def test_encode(self):
        report = self.bench("encode", "--format", "int4", "--kv-heads", 2, "--runs", 1)
        self.assertLessEqual(self.TIMES - set(report), set())
        self.assert_times(report, 1)
        self.assertGreaterEqual(report["bytes_per_run"], 4 << 20)
        # 4 bits over a group of 64: steps of about a third of a standard deviation.
        for side in ("keys", "values"):
            self.assertLess(report[f"rounding_error_of_{side}"], 0.12)
            self.assertGreater(report[f"rounding_error_of_{side}"], 0.05)

    def test_merge(self):
        report = self.bench("merge", "--parts", 3, "--rows", 1000, "--runs", 2)
        self.assertLessEqual(self.TIMES - set(report), set())
        self.assert_times(report, 2)
        self.assertEqual(report["bytes_per_run"], 4 * 1000 * 130 * 4)
        self.assertLess(report["measured_error"], 1e-5)

    MIXED = ({"resident_share", "streamed_share", "cpu_share", "output_difference",
              "streamed_bytes_a_step"} | spread("step", "_ms") | spread("step_over_streaming"))
    OVERLAP = (MIXED | {"goal"} | spread("copy", "_ms") | spread("compute", "_ms") |
               spread("step_over_longer"))
    THREAD_COST = ({"batch", "kv", "pages_a_sequence", "layers", "kv_heads", "append_us",
                    "attend_us", "poll_us", "goal_us"} | spread("cpu", "_us"))
    SMALL_STEP = ["--quick", "--pages", 3, "--tokens", 1024, "--batch", 2, "--layers", 3,
                  "--heads", 2]

    def assert_spreads(self, figures):
        for key, value in figures.items():
            if "_median" in key:
                self.assertLessEqual(figures[key.replace("_median", "_p10")], value, key)
                self.assertLessEqual(value, figures[key.replace("_median", "_p90")], key)
                self.assertGreater(figures[key.replace("_median", "_p10")], 0, key)

    def test_step(self):
        # 16 pages of 64 tokens, 2 heads and 128 elements: K and V with a scale and zero a head.
        for name, page_bytes in {"int4-head": 64 * 2 * 2 * (64 + 4),
                                 "fp16": 64 * 2 * 2 * 256}.items():
            with self.subTest(format=name):
                report = self.bench("step", "--format", name, *self.SMALL_STEP)
                self.assert_spreads(report)
                self.assertEqual([(cost["batch"], cost["kv"]) for cost in report["thread_cost"]],
                                 [(1, "resident"), (1, "streamed"), (32, "resident"),
                                  (32, "streamed")])
                for cost in report["thread_cost"]:
                    self.assertEqual(set(cost), self.THREAD_COST)
                    self.assertEqual(cost["pages_a_sequence"], 4)
                    self.assert_spreads(cost)
                all_streamed = 3 * 2 * 16 * page_bytes
                for steps in report["overlap"] + report["mixed"]:
                    self.assert_spreads(steps)
                    self.assertAlmostEqual(steps["resident_share"] + steps["streamed_share"] +
                                           steps["cpu_share"], 1)
                    # Shares round to pages.
                    self.assertAlmostEqual(steps["streamed_bytes_a_step"],
                                           steps["streamed_share"] * all_streamed,
                                           delta=0.1 * all_streamed)
                    # The same KV, wherever it is.
                    self.assertLess(steps["output_difference"], 2e-3)
                for overlap in report["overlap"]:
                    self.assertEqual(set(overlap), self.OVERLAP)
                for mix in report["mixed"]:
                    self.assertEqual(set(mix), self.MIXED)
                self.assertEqual(len(report["overlap"]), 3)
                self.assertEqual(report["overlap"][0]["streamed_share"], 1)
                self.assertEqual(report["mixed"][0]["step_over_streaming_median"], 1)
                self.assertGreater(report["mixed"][-1]["cpu_share"], 0)

    def test_step_prints_tables(self):
        table = self.modalkv("bench", "step", *self.SMALL_STEP)
        self.assertEqual((table.returncode, table.stderr), (0, ""))
        for part in ("CPU us a layer", "step / longer", "step / streaming", "fastest",
                     "What shares what"):
            self.assertIn(part, table.stdout)

    def test_bad_options_of_step(self):
        for option, value in (("--tokens", "0"), ("--batch", "0"), ("--layers", "x"),
                              ("--link-share", "0"), ("--threads", "0"), ("--pages", "-1")):
            with self.subTest(option=option, value=value):
                self.assert_fails(self.modalkv("bench", "step", option, value), option, code=USAGE)
        for arguments, part in {("--format", "int5"): "'int5' is no number format",
                                ("--layers", "2", "--staging-slots", "4"): "--layers 2",
                                ("--tokens", "1000000", "--batch", "64"): "GiB of memory"}.items():
            with self.subTest(arguments=arguments):
                self.assert_fails(self.modalkv("bench", "step", "--pages", 1, *arguments), part)

    def test_the_table_holds_every_figure_of_the_json(self):
        table = self.modalkv("bench", "merge", "--runs", 1)
        self.assertEqual((table.returncode, table.stderr), (0, ""))
        for key in self.bench("merge", "--runs", 1):
            self.assertIn("\n" + key.replace("_", " ") + " ", table.stdout)

    def test_help_explains_formats_and_results(self):
        for case, parts in {"attention": ("-channel", "FORMAT:SHARE", "fraction_of_read_ceiling"),
                            "encode": ("-channel", "Example"), "merge": ("Example",),
                            "step": ("-channel", "step / longer", "Example")}.items():
            result = self.modalkv("bench", case, "--help")
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            for part in parts:
                self.assertIn(part, result.stdout)

    def test_bad_options(self):
        self.assert_fails(self.modalkv("bench"), code=USAGE)
        self.assert_fails(self.modalkv("bench", "fly"), code=USAGE)
        for option, value in (("--tokens", "0"), ("--q-heads", "x"), ("--kv-heads", "0"),
                              ("--threads", "0"), ("--batch", "-1"), ("--runs", "0"),
                              ("--head-dim", "512"), ("--page-tokens", "8"),
                              ("--query-scale", "nan"), ("--seed", "x")):
            with self.subTest(option=option, value=value):
                self.assert_fails(self.modalkv("bench", "attention", option, value), option,
                                  code=USAGE)
        for arguments, part in {("--format", "int5"): "'int5' is no number format",
                                ("--format", "int4-g7"): "'-g7'",
                                ("--format", "fp16:0.5,int4:0.6"): "add up to 1.1",
                                ("--format", "fp16:0.001,int4:0.999", "--tokens", "16"):
                                    "leaves a part of the mix without any",
                                ("--input", "fp32"): "--input 'fp32'",
                                ("--q-heads", "6", "--kv-heads", "4"): "not a multiple",
                                ("--head-dim", "100"): "head_dim a multiple of 16",
                                ("--page-tokens", "20"): "a multiple of 16",
                                ("--threads", "1024"): "CPUs",
                                ("--tokens", "100000000"): "GiB of memory are available"}.items():
            with self.subTest(arguments=arguments):
                self.assert_fails(self.modalkv("bench", "attention", *arguments), part)
        self.assert_fails(self.modalkv("bench", "encode", "--format", "fp16:0.5,int4:0.5"),
                          "no number format")
        self.assert_fails(self.modalkv("bench", "merge", "--rows", 10_000_000, "--parts", 4096),
                          "GiB of memory are available")


class Samples(Cli):
    def test_the_bundled_sample_is_what_its_readme_says(self):
        samples = pathlib.Path(__file__).parents[2] / "tools" / "samples"
        lines = (samples / "README.md").read_text().splitlines()
        command = next(line for line in lines if line.startswith("modalkv trace generate"))
        made = self.modalkv(*command.split()[1:], cwd=self.root)
        self.assertEqual(made.returncode, 0, made.stderr)
        name = command.split()[-1]
        self.assertEqual((self.root / name).read_bytes(), (samples / name).read_bytes())


class Determinism(Cli):
    def digest(self, trace, *arguments):
        result = self.modalkv("simulate", "--trace", trace, "--json", *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)["digest"]

    def test_threads_and_seed_change_nothing_but_perturb_does(self):
        trace = self.root / "made.jsonl"
        self.modalkv("trace", "generate", "--requests", 60, "--rate", 3, "--image-pool", 10,
                     "--out", trace)
        first = self.digest(trace)
        for arguments in (["--threads", 1], ["--threads", 2], ["--threads", 4], ["--seed", 2]):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.digest(trace, *arguments), first)
        one = self.digest(trace, "--perturb", "0.1")
        self.assertNotEqual(one, first)
        self.assertEqual(self.digest(trace, "--perturb", "0.1", "--seed", 1, "--threads", 1), one)
        self.assertNotEqual(self.digest(trace, "--perturb", "0.1", "--seed", 2), one)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
