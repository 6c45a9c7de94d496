#!/usr/bin/env python3
"""Fits the cost model's efficiencies of a GPU to kernel times measured on it.

usage: fit_kernel_tables.py FOLDER

FOLDER holds dense.csv, per_sequence.csv and attention.csv of one dense model (the columns are those of
LLMServingSim's profiler tables). Card and model are those of the measured run this project ships figures of: RTX 4090,
Llama-3.1-8B. Prints one line a parameter, with the median and 90th-percentile relative error of the fit.
"""
import csv
import math
import os
import sys

BANDWIDTH, FLOPS = 1008e9, 165.2e12  # RTX 4090 datasheet
HIDDEN, FFN, VOCABULARY, LAYER_QUERIES, LAYER_KV = 4096, 14336, 128256, 4096, 1024
GEMMS = {
    "qkv_proj": (HIDDEN, LAYER_QUERIES + 2 * LAYER_KV),
    "o_proj": (LAYER_QUERIES, HIDDEN),
    "gate_up_proj": (HIDDEN, 2 * FFN),
    "down_proj": (FFN, HIDDEN),
    "lm_head": (HIDDEN, VOCABULARY),
}
SMALL_OPS = {"layernorm": 2, "rotary_emb": 1, "act_fn": 1}  # calls a layer


def rows(folder, name):
    with open(os.path.join(folder, name), newline="") as file:
        return list(csv.DictReader(file))


def gemm_us(inputs, outputs, tokens, memory, flops):
    read = 2 * inputs * outputs + 2 * (inputs + outputs) * tokens
    arithmetic = 2 * inputs * outputs * tokens
    return 1e6 * math.hypot(read / (BANDWIDTH * memory), arithmetic / (FLOPS * flops))


def errors(model, points):
    return sorted(abs(model(*point[:-1]) - point[-1]) / point[-1] for point in points)


def search(make, points, ranges, rounds=5, steps=24):
    """The parameters of least mean squared relative error, by a grid that narrows around its best point."""
    best = None
    for _ in range(rounds):
        grids = [[low + (high - low) * i / steps for i in range(steps + 1)] for low, high in ranges]
        candidates = [[]]
        for grid in grids:
            candidates = [c + [g] for c in candidates for g in grid]
        for c in candidates:
            model = make(*c)
            loss = sum(((model(*p[:-1]) - p[-1]) / p[-1]) ** 2 for p in points)
            if best is None or loss < best[0]:
                best = (loss, c)
        ranges = [(max(0.001, b - (high - low) / steps * 2), b + (high - low) / steps * 2)
                  for b, (low, high) in zip(best[1], ranges)]
    return best[1]


def report(name, values, model, points):
    error = errors(model, points)
    print(f"{name}: {values}  median error {100 * error[len(error) // 2]:.1f} %, "
          f"p90 {100 * error[len(error) * 9 // 10]:.1f} % over {len(points)} points")


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    folder = sys.argv[1]

    points = [(*GEMMS[r["layer"]], int(r["tokens"]), float(r["time_us"]))
              for r in rows(folder, "dense.csv") if r["layer"] in GEMMS]
    points += [(*GEMMS["lm_head"], int(r["sequences"]), float(r["time_us"]))
               for r in rows(folder, "per_sequence.csv") if r["layer"] == "lm_head"]
    make = lambda memory, flops: lambda i, o, t: gemm_us(i, o, t, memory, flops)
    best = search(make, points, [(0.5, 1.0), (0.5, 1.05)])
    report("gemm_memory, gemm_flops", [round(v, 3) for v in best], make(*best), points)

    small = {}
    for r in rows(folder, "dense.csv"):
        if r["layer"] in SMALL_OPS:
            tokens = int(r["tokens"])
            small[tokens] = small.get(tokens, 0) + SMALL_OPS[r["layer"]] * float(r["time_us"])
    points = [(tokens, us) for tokens, us in small.items()]
    make = lambda layer, token: lambda t: layer + token * t
    best = search(make, points, [(1, 40), (0.001, 0.3)])
    report("small_ops us a layer, us a token", [round(v, 3) for v in best], make(*best), points)

    table = rows(folder, "attention.csv")
    decode = [(int(r["n_decode"]) * int(r["kv_decode"]) * 2 * 2 * LAYER_KV, float(r["time_us"]))
              for r in table if int(r["prefill_chunk"]) == 0 and int(r["n_decode"]) > 0]
    make = lambda launch, memory: lambda read: launch + 1e6 * read / (BANDWIDTH * memory)
    best = search(make, decode, [(1, 40), (0.5, 1.05)])
    report("attention_launch us, attention_memory", [round(v, 3) for v in best], make(*best), decode)

    launch = best[0]
    prefill = [(int(r["prefill_chunk"]), int(r["kv_prefill"]), float(r["time_us"])) for r in table
               if int(r["prefill_chunk"]) >= 256 and int(r["n_decode"]) == 0]
    make = lambda flops: lambda chunk, kv: launch + 1e6 * 4 * LAYER_QUERIES * chunk * (
        kv + chunk / 2) / (FLOPS * flops)
    best = search(make, prefill, [(0.3, 1.0)])
    report("prefill_flops", [round(v, 3) for v in best], make(*best), prefill)


if __name__ == "__main__":
    main()
