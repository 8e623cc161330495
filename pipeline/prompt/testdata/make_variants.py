#!/usr/bin/env python3
"""Writes goldens of tokenizers that differ from the usual one: flags of added tokens, normal forms, pre-tokenizers.

    python make_variants.py TOKENIZER.json OUT.json.gz

Each variant is a patch of TOKENIZER.json ("a.b" names the key b of object a) and strings with their ids and decoded
forms. Needs the package tokenizers (0.23.3 made the committed file).
"""

import copy
import gzip
import json
import random
import sys

from tokenizers import Tokenizer


def token(number: int, content: str, **flags: bool) -> dict:
    entry = {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return entry | flags


PIECES = [
    "[L]", "[R]", "[B]", "[W]", "caf\u00e9", "cafe\u0301", "\uff28\uff29", "ab", "abc", "abcd", "<x>", "<x> ", "[L", "L]", " ", "  ", "\n", "\t", "\u00a0", "\u3000",
    "word", "x", "_", "7", "\u0301", "\u00e9", "-", ".", "'s", "don't", "123", "\u4f60", "H", "\uff21", "\ufb01", "\u00bd", "the", " the",
]


def main() -> None:
    source, out = sys.argv[1], sys.argv[2]
    with open(source, encoding="utf-8") as file:
        base = json.load(file)
    size = max(t["id"] for t in base["added_tokens"]) + 1
    flags = [
        token(size, "[L]", lstrip=True),
        token(size + 1, "[R]", rstrip=True),
        token(size + 2, "[B]", lstrip=True, rstrip=True, special=False),
        token(size + 3, "[W]", single_word=True),
        token(size + 4, "caf\u00e9", normalized=True, special=False),
        token(size + 5, "\uff28\uff29", special=False),
        token(size + 6, "ab", special=False),
        token(size + 7, "abcd", special=False),
        token(size + 8, "<x>", normalized=True, single_word=True),
    ]
    split = base["pre_tokenizer"]["pretokenizers"][0]
    variants = {
        "flags of added tokens": {"added_tokens": base["added_tokens"] + flags},
        "no normalizer": {"normalizer": None, "added_tokens": base["added_tokens"] + flags},
        "NFKC": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}, "added_tokens": base["added_tokens"] + flags},
        "NFD": {"normalizer": {"type": "NFD"}},
        "GPT-2 words with a space before": {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        "split and GPT-2 words": {
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}
        },
        "whole words first": {"model.ignore_merges": True},
        "merges as text": {"model.merges": [" ".join(m) if isinstance(m, list) else m for m in base["model"]["merges"]]},
    }
    rng = random.Random(7)
    result = []
    for name, patch in variants.items():
        patched = copy.deepcopy(base)
        for key, value in patch.items():
            *parents, last = key.split(".")
            target = patched
            for parent in parents:
                target = target[parent]
            target[last] = value
        tokenizer = Tokenizer.from_str(json.dumps(patched))
        rows = []
        for _ in range(150):
            text = "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 12)))
            ids = tokenizer.encode(text).ids
            rows.append([text, ids, tokenizer.decode(ids, skip_special_tokens=False), tokenizer.decode(ids, skip_special_tokens=True)])
        result.append({"name": name, "patch": patch, "texts": rows})
    data = json.dumps(result, ensure_ascii=True, separators=(",", ":")).encode()
    with open(out, "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
        packed.write(data)


if __name__ == "__main__":
    main()
