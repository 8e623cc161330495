#!/usr/bin/env python3
"""Trains the tokenizer of the random checkpoints: a byte-level BPE with the pre-tokenizer, the normalizer and the
special tokens of Qwen2.5-Omni, learnt from corpus.txt (text written for this purpose).

    pip install tokenizers && python3 train.py [VOCAB]        # writes ../tokenizer.json

The result is committed; this script is only needed to change it. The merges are ordered, so a checkpoint with a
smaller vocabulary keeps the first of them, and one with a larger vocabulary appends its own (see ../tokenizer.go).
"""
import pathlib
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# The added tokens of Qwen2.5-Omni in the order of their ids, which follow the vocabulary without a gap. The second
# value says whether the token is "special" (left out of decoded text).
ADDED = [
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<|AUDIO|>", True),
    ("<|audio_bos|>", True), ("<|audio_eos|>", True), ("<|box_end|>", True), ("<|quad_start|>", True),
    ("<|quad_end|>", True), ("<|vision_bos|>", True), ("<|vision_eos|>", True), ("<|vision_pad|>", True),
    ("<|IMAGE|>", True), ("<|VIDEO|>", True), ("<tool_call>", False), ("</tool_call>", False),
    ("<|fim_prefix|>", False), ("<|fim_middle|>", False), ("<|fim_suffix|>", False), ("<|fim_pad|>", False),
    ("<|repo_name|>", False), ("<|file_sep|>", False),
]


def main():
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1600
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    text = (HERE / "corpus.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.add_tokens([
        AddedToken(content, special=special, normalized=False, single_word=False, lstrip=False, rstrip=False)
        for content, special in ADDED
    ])
    tokenizer.save(str(HERE.parent / "tokenizer.json"), pretty=True)
    sample = "Hello, world! 你好，世界 🙂 naïve café\n\tfor i := 0; i < 10; i++ {}"
    ids = tokenizer.encode(sample).ids
    assert tokenizer.decode(ids) == sample, tokenizer.decode(ids)
    print(f"{tokenizer.get_vocab_size(with_added_tokens=False)} tokens, {len(ADDED)} added, sample -> {len(ids)} ids")


if __name__ == "__main__":
    main()
