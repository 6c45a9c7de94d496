#!/usr/bin/env python3
"""Writes content_golden.txt: identities of content by Python's hashlib, from the encoding that
include/modalkv/content.hpp states. Usage: make_content_golden.py [FILE].

  tokens ID TOKEN_ID ...
  prefix ID BEFORE CONTENT CLASS TOKENS KV_TAG     KV_TAG: its bytes in hexadecimal, '-' for none

Ids are 64 hexadecimal digits, their 32 bytes in order.
"""

import hashlib
import pathlib
import random
import struct
import sys

EMPTY = bytes(32)


def content_of_tokens(token_ids):
    return hashlib.sha256(b"modalkv.tokens.1" + struct.pack("<Q", len(token_ids)) +
                          struct.pack(f"<{len(token_ids)}i", *token_ids)).digest()


def chain(before, content, token_class, tokens, kv_tag):
    return hashlib.sha256(b"modalkv.prefix.1" + before + content +
                          struct.pack("<BQQ", token_class, tokens, len(kv_tag)) + kv_tag).digest()


def lines():
    rng = random.Random(1)
    for ids in ([], [0], [0, 0], [1], [-1], [2**31 - 1, -2**31], list(range(1000))):
        yield " ".join(["tokens", content_of_tokens(ids).hex(), *map(str, ids)])
    for kv_tag in (b"", b"m", b"llava-1.5-7b fp16", bytes(range(256))):
        before = EMPTY
        for token_class in range(4):
            content, tokens = rng.randbytes(32), rng.choice((1, 576, 2**40 + 3))
            prefix = chain(before, content, token_class, tokens, kv_tag)
            yield " ".join(["prefix", prefix.hex(), before.hex(), content.hex(), str(token_class),
                            str(tokens), kv_tag.hex() or "-"])
            before = prefix


def main(arguments):
    default = pathlib.Path(__file__).with_name("content_golden.txt")
    path = pathlib.Path(arguments[0]) if arguments else default
    head = "# made by make_content_golden.py with Python's hashlib"
    path.write_text("\n".join([head, *lines()]) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
