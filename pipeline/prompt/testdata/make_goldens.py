#!/usr/bin/env python3
"""Writes what Hugging Face's tokenizers make of many strings: the goldens of the tokenizer's tests.

    python make_goldens.py TOKENIZER.json OUT.json.gz [COUNT]

Needs the packages tokenizers (0.23.3 made the committed file) and nothing else. The strings are fixed cases and COUNT
random ones from a seeded generator: letters of many scripts, combining marks in any order, white space of all kinds,
emoji sequences, digits, punctuation, contractions, added tokens, unassigned and private characters.

Each entry is [text, ids, decoded, decoded without special tokens]; "streams" are random id lists with their decoded
forms, which mostly are not valid UTF-8.
"""

import gzip
import json
import random
import sys

from tokenizers import Tokenizer

FIXED = [
    "", " ", "  ", "\n", "\r\n", "\t", " \n ", "a", " a", "  a", "a ", "a  b", "a\nb", "a \n\n b", "\n\n\n", " \n\n  x", "x   \n",
    "Hello, world!", "it's IT'S we'Re you'LL he'd I'M they'vE don't 's", "'\u017fa it'\u017f '\u017fT x'\u017f", "12345 3.14 \u0663\u0664 \u00bd \u2167 \u00b2",
    "\u00e9 e\u0301 \u1e9b\u0323 \u212b \u2126 \ufb01 \u0344", "\uac00\u1100\u1161\u11a8 \ud55c\uad6d\uc5b4", "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u3053\u3093\u306b\u3061\u306f", "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22 \u0e01\u0e33", "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f", "\U0001d518\U0001d52b \U00020000 \U000e0041",
    "\u00a0x\u2003y\u3000z\u0085\u000b\u000c\u001c\u001f\u200b\ufeff\u2028\u2029", "a\u0000b\u007f\u0080\u009f\u00ad", "\ue000\uffff\ufffe\ufdd0\U0010ffff", "\ufffd \ufffd\ufffd",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|im_start|><|im_start|> <|im_end|>x<|im_end", "<|im_start|", "<<|im_end|>|>",
    "a<|endoftext|>b  <|endoftext|>  c", "<tool_call>{\"a\": 1}</tool_call>", "<|AUDIO|><|IMAGE|><|VIDEO|>", "e<|im_end|>\u0301",
    "\U00013928'll \U000105c0\U0002ebf0x \U00010d41\U0001ccf5 \ua7cb's \U00013460\u0301",
    "a" * 300, " " * 300, "\n" * 100, "ab" * 500, "!" * 200, "\u0301" * 50, "e" + "\u0301" * 40, "0" * 50, "\U0001f600" * 60,
]

BLOCKS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x30, 0x39), (0xA0, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x531, 0x58F), (0x5D0, 0x5EA), (0x600, 0x6FF), (0x900, 0x97F), (0xE01, 0xE5B), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF),
    (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xA640, 0xA69F), (0xAC00, 0xD7A3),
    (0xE000, 0xE010), (0xF900, 0xFAFF), (0xFB00, 0xFFFD), (0x10000, 0x1FFFF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF),
    (0xE0000, 0xE01EF),
]
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\u3000", "\u0085", "\u000b", "\u000c", "\u2028", "\r", "\n\n", "   "]
PIECES = ["'s", "'T", "'re", "'VE", "'m", "'ll", "'D", "'\u017f", "n't", "...", "?!", "://", "\u200d", "\ufe0f", "\u0301", "\u0323", "\u0307\u0323", "123", "3.5", "_", "--"]
WORDS = "the quick brown fox jumps over a lazy dog Hello World prompt thinker speech tokens \u00fcber na\u00efve caf\u00e9 \u4f60\u597d \u4e16\u754c \u043f\u0440\u0438\u0432\u0435\u0442".split()


def random_text(rng: random.Random, added: list[str]) -> str:
    parts = []
    for _ in range(rng.randint(1, 24)):
        kind = rng.random()
        if kind < 0.35:
            low, high = rng.choice(BLOCKS)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6))))
        elif kind < 0.55:
            parts.append(rng.choice(SPACES) * rng.randint(1, 3))
        elif kind < 0.75:
            parts.append(rng.choice(WORDS))
        elif kind < 0.92:
            parts.append(rng.choice(PIECES))
        else:
            parts.append(rng.choice(added))
    return "".join(c for c in "".join(parts) if not 0xD800 <= ord(c) <= 0xDFFF)


def main() -> None:
    source, out = sys.argv[1], sys.argv[2]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 600
    tokenizer = Tokenizer.from_file(source)
    added = [t.content for t in tokenizer.get_added_tokens_decoder().values()] or ["<none>"]
    rng = random.Random(20260705)
    size = max(tokenizer.get_vocab().values()) + 1
    texts = FIXED + [random_text(rng, added) for _ in range(count)]

    def forms(ids: list[int]) -> list[str]:
        return [tokenizer.decode(ids, skip_special_tokens=False), tokenizer.decode(ids, skip_special_tokens=True)]

    golden = {"texts": [], "streams": []}
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=True).ids
        golden["texts"].append([text, ids, *forms(ids)])
    for _ in range(count // 4):
        ids = [rng.randrange(size + 40) if rng.random() < 0.5 else rng.randrange(256) for _ in range(rng.randint(1, 12))]
        golden["streams"].append([ids, *forms(ids)])
    data = json.dumps(golden, ensure_ascii=True, separators=(",", ":")).encode()
    with open(out, "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
        packed.write(data)


if __name__ == "__main__":
    main()
