#!/usr/bin/env python3
"""Writes text_mask_golden.txt: what PyTorch makes of the published sketch of text-centric
quantization, on CPU tensors. Usage: make_text_mask_golden.py [FILE]; needs torch, on x86-64.

A file of lines of words. Elements are the bits of the tensor's type in hexadecimal:

  input TYPE NAME TOKENS WIDTH MASK     MASK: a digit a token, 1 is text
  keys ... / values ...
  output BITS                           of the input above, any number of times
  scales KEY VALUE                      bits of the type; '-' where there is no image token
  key_codes ... / value_codes ...       [image tokens, width], decimal
  keys ... / values ...                 restored, [tokens, width]
  sweep TYPE BITS LARGEST SCALE HASH    the image tokens are all numbers of a 16-bit type whose
                                        magnitude is at most LARGEST, in the order of their bits;
                                        HASH: FNV-1a of the codes' bytes, then the restored bits'
"""

import pathlib
import random
import sys

import torch

TYPES = {"fp32": (torch.float32, torch.int32, 32),
         "fp16": (torch.float16, torch.int16, 16),
         "bf16": (torch.bfloat16, torch.int16, 16)}
QUANT_BITS = (2, 3, 4, 8)
EVERY_QUANT_BITS = range(2, 9)


def sketch(tensor, text_token_mask, quant_bits):
    """The published arithmetic: (scale, codes, restored)."""
    image = tensor[~text_token_mask]
    restored = tensor.clone()
    if image.numel() == 0:
        return None, image.to(torch.int8), restored
    scale = image.abs().max() / (2 ** (quant_bits - 1) - 1)
    codes = torch.round(image / scale).to(torch.int8)
    restored[~text_token_mask] = codes.to(tensor.dtype) * scale
    return scale, codes, restored


def words(tensor, type_name):
    """The bits of each element in hexadecimal."""
    _, integer, bits = TYPES[type_name]
    whole = tensor.reshape(-1).contiguous().view(integer).tolist()
    return " ".join(f"{word % 2 ** bits:x}" for word in whole)


def of_bits(bits, type_name):
    """Elements from a list of unsigned bits."""
    dtype, integer, size = TYPES[type_name]
    return torch.tensor([word - 2 ** size if word >= 2 ** (size - 1) else word for word in bits],
                        dtype=integer).view(dtype)


def inputs(type_name):
    """Yields (name, keys, values, text_token_mask)."""
    dtype = TYPES[type_name][0]
    tokens, width = 6, 8
    generator = random.Random(20)

    def normal(size=1.0):
        rows = [[generator.gauss(0, size) for _ in range(width)] for _ in range(tokens)]
        return torch.tensor(rows).to(dtype)

    def mask(digits):
        return torch.tensor([digit == "1" for digit in digits])

    mixed = mask("101000")
    tiny = torch.finfo(dtype).smallest_normal
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    largest = torch.finfo(dtype).max
    yield "normal", normal(), normal(3), mixed
    yield "all_image", normal(), normal(0.01), mask("000000")
    yield "all_text", normal(), normal(), mask("111111")
    yield "one_image_token", normal(), normal(40), mask("111011")

    outliers, text_outliers = normal(), normal()
    outliers[3, 5] = 97.0
    text_outliers[0, 0] = 97.0  # of a text token: not to be seen by the scale
    yield "outliers", outliers, text_outliers, mixed

    # Scales that are powers of two for every number of bits, and quotients of exactly k + 1/2.
    for steps in (1, 3, 7, 127):
        halves = (torch.arange(tokens * width) - 24).reshape(tokens, width) + 0.5
        halves = halves.clamp(-steps, steps)
        halves[5, 7] = steps
        yield f"ties_{steps}", halves.to(dtype), (halves / 1024).to(dtype), mixed

    # 8 bits of BF16: the scale is rounded down so far that the largest code is 128.
    flipped = normal(0.3)
    flipped[2, 2], flipped[4, 4] = 1.34375, -1.34375
    yield "largest_code_128", flipped, -flipped, mask("000000")

    # Scales that are subnormal, or zero.
    yield "subnormal_elements", normal(tiny / 4).clamp(-tiny, tiny), normal(tiny * 8), mixed
    beside = normal(tiny)
    beside[4, 4] = tiny * 1024
    yield "subnormal_beside_normal", beside, beside.flip(0), mask("010010")
    steps_of_smallest = (torch.arange(tokens * width) % 41 - 20).reshape(tokens, width)
    yield "smallest_steps", (steps_of_smallest * smallest).to(dtype), normal(), mixed

    huge = normal(largest / 8).clamp(-largest, largest)
    huge[1, 1] = largest
    yield "huge", huge, -huge, mixed
    yield "huge_beside_small", torch.where(huge.abs() > largest / 8, huge, normal()), huge, mixed
    yield "smallest_alone", normal().sign() * smallest, normal().sign() * smallest * 100, mixed
    yield "zeros", normal() * 0, normal() * 0, mixed
    yield "negative_zero", -normal().abs().clamp(max=0.6).round(), normal(), mixed


def fnv1a(data):
    value = 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 % 2 ** 64
    return value


def sweep(type_name, quant_bits, largest):
    """One line over every number of a 16-bit type within [-largest, largest]."""
    dtype, integer, _ = TYPES[type_name]
    limit = torch.tensor([largest]).to(dtype)
    every = of_bits(range(65536), type_name)
    within = every[every.abs() <= limit].reshape(-1, 1)
    scale, codes, restored = sketch(within, torch.zeros(len(within), dtype=torch.bool), quant_bits)
    data = bytes(code % 256 for code in codes.reshape(-1).tolist())
    for word in restored.reshape(-1).view(integer).tolist():
        data += (word % 65536).to_bytes(2, "little")
    numbers = f"{words(limit, type_name)} {words(scale, type_name)}"
    return f"sweep {type_name} {quant_bits} {numbers} {fnv1a(data):x}"


def case_lines(type_name):
    for name, keys, values, text_token_mask in inputs(type_name):
        digits = "".join("1" if text else "0" for text in text_token_mask.tolist())
        yield f"input {type_name} {name} {keys.shape[0]} {keys.shape[1]} {digits}"
        yield f"keys {words(keys, type_name)}"
        yield f"values {words(values, type_name)}"
        for quant_bits in QUANT_BITS:
            results = [sketch(tensor, text_token_mask, quant_bits) for tensor in (keys, values)]
            yield f"output {quant_bits}"
            yield "scales " + " ".join("-" if scale is None else words(scale, type_name)
                                       for scale, _, _ in results)
            for side, (_, codes, _) in zip(("key", "value"), results):
                yield f"{side}_codes " + " ".join(map(str, codes.reshape(-1).tolist()))
            for side, (_, _, restored) in zip(("keys", "values"), results):
                yield f"{side} {words(restored, type_name)}"


def main(arguments):
    default = pathlib.Path(__file__).with_name("text_mask_golden.txt")
    path = pathlib.Path(arguments[0]) if arguments else default
    lines = [f"# made by make_text_mask_golden.py with torch {torch.__version__.split('+')[0]}"]
    for type_name in TYPES:
        lines.extend(case_lines(type_name))
    largests = {"fp16": (0.37109375, 5.0, 60000.0), "bf16": (0.37109375, 1e30)}
    for type_name in largests:
        for largest in largests[type_name]:
            lines.extend(sweep(type_name, quant_bits, largest) for quant_bits in EVERY_QUANT_BITS)
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
