"""Measures Python's torch.profiler as bench_profiler.py measures ours, which runs it: the same operators, the same checkpoint,
pairs without and with the profiler in turn. One JSON object on the last line of standard output.

bench_profiler_reference.py ops|decode|session [FLAGS] --dir FOLDER"""

import argparse
import contextlib
import gc
import json
import os
import pathlib
import resource
import time

import torch


def rss_mb():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def profiler(options):
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=options.shapes)


def timed(function):
    started = time.perf_counter_ns()
    function()
    return time.perf_counter_ns() - started


def pairs(count, function, options):
    """Times of function without and with a profiler in turn, in nanoseconds; starting and stopping it do not count."""
    off, on = [], []
    function()  # warm up
    with profiler(options):
        function()
    for pair in range(count):
        for recording in ((False, True) if pair % 2 == 0 else (True, False)):
            gc.collect()
            with profiler(options) if recording else contextlib.nullcontext():
                (on if recording else off).append(timed(function))
    return off, on


def ops(options):
    torch.set_num_threads(1)
    a, b = torch.randn(64, 64), torch.randn(64, 64)

    def run():
        for _ in range(options.ops):
            torch.add(a, b)

    off, on = pairs(options.pairs, run, options)
    return {"off_ns_per_op": [t / options.ops for t in off], "on_ns_per_op": [t / options.ops for t in on]}


def decode(options):
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(options.checkpoint, dtype="auto").eval()
    prompt = torch.arange(10, 42).unsqueeze(0)

    def generate(tokens):
        model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens)

    off, on = pairs(options.pairs, lambda: generate(options.tokens), options)
    with profiler(options) as recorded:
        generate(options.tokens)
    return {"off_ms": [t / 1e6 for t in off], "on_ms": [t / 1e6 for t in on], "events_per_token": len(recorded.events()) / options.tokens}


def session(options):
    torch.set_num_threads(1)
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    torch.add(a, b)
    before = rss_mb()
    recorded = profiler(options)
    recorded.start()
    for _ in range(options.events):
        torch.add(a, b)
    result = {"stop_ms": timed(recorded.stop) / 1e6}
    path = pathlib.Path(options.dir, "trace.json.gz")
    result["closed_ms"] = result["stop_ms"] + timed(lambda: recorded.export_chrome_trace(str(path))) / 1e6
    result["table_ms"] = timed(lambda: recorded.key_averages().table(sort_by="self_cpu_time_total")) / 1e6
    result.update(events=len(recorded.events()), dropped=0, bytes=path.stat().st_size, rss_before_mb=before,
                  rss_peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
    del recorded
    gc.collect()
    result["rss_after_mb"] = rss_mb()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["ops", "decode", "session"])
    parser.add_argument("--checkpoint")
    parser.add_argument("--ops", type=int)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--events", type=int)
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--dir", required=True)
    options = parser.parse_args()
    with torch.inference_mode():
        print(json.dumps({"ops": ops, "decode": decode, "session": session}[options.part](options)))


main()
