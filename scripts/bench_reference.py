"""Measures transformers on the same checkpoint and prompt as bench.py, which runs it: prompt ids on standard input, one
JSON object on the last line of standard output."""

import argparse
import json
import sys
import time

STARTED = time.perf_counter()

import torch
from transformers import Qwen2_5OmniForConditionalGeneration


class Timed:
    """Adds up the time spent in a method and keeps its last arguments and result."""

    def __init__(self, owner, name):
        self.seconds, self.method = 0.0, getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *args, **kwargs):
        started = time.perf_counter()
        self.kwargs, self.result = kwargs, self.method(*args, **kwargs)
        self.seconds += time.perf_counter() - started
        return self.result


def timed(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def thinker(model, ids, batch, tokens):
    """Seconds for a batch of equal prompts to get that many tokens."""
    inputs = torch.tensor([ids] * batch)
    return timed(lambda: model.thinker.generate(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--codes", type=int, required=True)
    options = parser.parse_args()
    ids = json.load(sys.stdin)

    model = Qwen2_5OmniForConditionalGeneration.from_pretrained(options.checkpoint, dtype=options.dtype).eval()
    result = {"load": time.perf_counter() - STARTED}
    with torch.inference_mode():
        thinker(model, ids, 1, 2)  # warm up
        result["prefill"] = 1000 * min(thinker(model, ids, 1, 1) for _ in range(3))
        for batch in (1, 4, 16):
            seconds = thinker(model, ids, batch, options.tokens + 1) - thinker(model, ids, batch, 1)
            result[f"decode, batch {batch}"] = batch * options.tokens / seconds

        talker, token2wav = Timed(model.talker, "generate"), Timed(model.token2wav, "forward")
        inputs = torch.tensor([ids])
        torch.manual_seed(1)
        result["first audio"] = timed(lambda: model.generate(
            input_ids=inputs, attention_mask=torch.ones_like(inputs), generation_mode="audio",
            thinker_do_sample=False, thinker_min_new_tokens=options.tokens, thinker_max_new_tokens=options.tokens,
            talker_min_new_tokens=options.codes, talker_max_new_tokens=options.codes))
        codes = talker.result.shape[1] - talker.kwargs["input_ids"].shape[1]
        result["talker"] = codes / talker.seconds
        samples = token2wav.result.numel()
        result["vocoder RTF"] = token2wav.seconds / (samples / 24000)
        result["made"] = {"codes": codes, "samples": samples}
    print(json.dumps(result))


main()
