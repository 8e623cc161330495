"""Measures what profiling costs, for both recorders and for Python's torch.profiler, and prints it beside the aims.

Everything that compares times is measured in pairs, without and with a recorder in turn in one process, and the ratio is taken
within each pair: a machine that becomes slower or faster meanwhile changes both. Printed is the median of the ratios, with the
interval in which the median lies with 95 % (from the ranks, without assumptions); an interval that holds an aim decides
nothing. Recorders measure their own cost as well: "own figure". Measure on an idle machine: the load is printed."""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

RECORDERS = ("stream", "kineto")
PYTHON = "python"  # torch.profiler
NOTES = []


def last_line(command, what, **options):
    """The JSON object on the last line of a program's output; None, and a note, if it fails."""
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if run.returncode != 0 or not run.stdout.strip():
        NOTES.append(f"{what} was not measured: {(run.stderr or run.stdout).strip()[-400:]}")
        return None
    return json.loads(run.stdout.strip().splitlines()[-1])


class Bench:
    """Runs the parts. Each has files of its own, removed at once: a million events fill disks."""

    def __init__(self, options):
        self.options = options

    def ours(self, part, *flags):
        with tempfile.TemporaryDirectory(prefix="omni-bench-") as folder:
            return last_line([self.options.recorder_bench, part, *flags, "--dir", folder], f"{part} {' '.join(map(str, flags))}")

    def theirs(self, part, *flags):
        if self.options.reference == "none":
            return None
        script = pathlib.Path(__file__).with_name("bench_profiler_reference.py")
        with tempfile.TemporaryDirectory(prefix="omni-bench-") as folder:
            return last_line([self.options.reference, script, part, *flags, "--dir", folder], f"torch.profiler, {part} {' '.join(map(str, flags))}",
                             env={**os.environ, "TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"})

    def measure(self, who, part, *flags):
        return self.theirs(part, *flags) if who == PYTHON else self.ours(part, "--recorder", who, *flags)


def median_interval(values):
    """The median, and the interval of ranks that holds that of the distribution with 95 %."""
    values = sorted(values)
    n = len(values)
    low = 0
    while low < n // 2 and sum(math.comb(n, k) for k in range(low + 1)) * 2 <= 0.05 * 2**n:
        low += 1
    low = max(0, low - 1)
    return statistics.median(values), values[low], values[n - 1 - low]


def slowdown(off, on):
    """How much longer it takes with a recorder, in percent."""
    return median_interval([100 * (b / a - 1) for a, b in zip(off, on)])


def added(off, on):
    return median_interval([b - a for a, b in zip(off, on)])


def cell(triple, unit, digits=2):
    middle, low, high = triple
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"


def reported(result, key, digits, unit=""):
    """What a recorder says of its own cost during the session."""
    return f"{statistics.median(result[key]):.{digits}f}{unit}" if result.get(key) else "-"


def table(title, head, rows):
    rows = [row for row in rows if row]
    print(f"\n{title}\n")
    if not rows:
        print("  not measured")
        return
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  " + "  ".join(str(text).ljust(width) if i == 0 else str(text).rjust(width) for i, (text, width) in enumerate(zip(row, widths))))


def name(who):
    return "torch.profiler" if who == PYTHON else who


def per_op(bench, o):
    rows = []
    for who in (*RECORDERS, PYTHON):
        for shapes in (False, True):
            r = bench.measure(who, "ops", "--ops", o.ops, "--pairs", o.pairs, *(["--shapes"] if shapes else []))
            if r:
                rows.append((name(who), "shapes" if shapes else "", f"{statistics.median(r['off_ns_per_op']):.0f}",
                             cell(added(r["off_ns_per_op"], r["on_ns_per_op"]), "", 0), cell(slowdown(r["off_ns_per_op"], r["on_ns_per_op"]), " %", 1), reported(r, "overhead_ns_per_op", 0)))
    table("Cost of an operator (64x64, one thread), ns; the aim: at most 300 added with shapes, stream",
          ("recorder", "", "without", "added", "slower", "own figure"), rows)


def decode(bench, o):
    rows = []
    cases = [(who, shapes, ()) for who in (*RECORDERS, PYTHON) for shapes in (False, True)]
    cases += [("stream", False, ("--ring", "10"))]
    for who, shapes, ring in cases:
        # The reference takes several times as long a token.
        tokens, count = (o.tokens // 2, max(7, o.decode_pairs // 2)) if who == PYTHON else (o.tokens, o.decode_pairs)
        r = bench.measure(who, "decode", "--checkpoint", o.checkpoint, "--tokens", tokens, "--pairs", count,
                          *(["--shapes"] if shapes else []), *ring)
        if r:
            what = "flight recorder" if ring else "shapes" if shapes else ""
            own = {"percent": [100 * cost / on for cost, on in zip(r.get("overhead_ms", []), r["on_ms"])]}
            rows.append((name(who), what, f"{statistics.median(r['off_ms']) / tokens:.3f}", f"{r.get('events_per_token', 0):.0f}",
                         cell(slowdown(r["off_ms"], r["on_ms"]), " %"), reported(own, "percent", 2, " %")))
    table(f"Thinker decode, {o.tokens} tokens a run, batch 1; the aims: stream at most 1 % slower, flight recorder 0.5 %",
          ("recorder", "", "ms a token", "events a token", "slower", "own figure"), rows)


def dropped(result):
    """The number of lost events, which ours give by reason."""
    return sum(result["dropped"].values()) if isinstance(result["dropped"], dict) else result["dropped"]


def sessions(bench, o):
    rows = []
    for events in o.events:
        for who in (*RECORDERS, PYTHON):
            if who == PYTHON and events > o.python_events:
                NOTES.append(f"torch.profiler at {events} events was left out (--python-events {events} measures it: minutes, and gigabytes of memory)")
                continue
            r = bench.measure(who, "session", "--events", events, "--shapes")
            if r:
                rows.append((f"{events:,}", name(who), f"{r['events']:,}", f"{dropped(r):,}", f"{r['stop_ms']:.1f}", f"{r['closed_ms']:.1f}", f"{r['table_ms']:.1f}",
                             f"{r['bytes'] / 1e6:.1f}", f"{r['rss_peak_mb'] - r['rss_before_mb']:.0f}", f"{r['rss_after_mb'] - r['rss_before_mb']:.0f}"))
    table("End of a session, with shapes; the aims at a million events, stream: stop 10 ms, closed 100 ms after it, table 200 ms, 64 MB",
          ("asked for", "recorder", "events", "dropped", "stop ms", "closed ms", "table ms", "file MB", "memory +MB", "kept +MB"), rows)


def soak(bench, o):
    rows = []
    for who in RECORDERS:
        r = bench.measure(who, "soak", "--sessions", o.sessions, "--ops", 200)
        if r:
            rows.append((name(who), o.sessions, f"{r['rss_first_mb']:.1f}", f"{r['rss_last_mb']:.1f}", f"{r['rss_last_mb'] - r['rss_first_mb']:+.1f}", f"{r['ms_per_session']:.2f}"))
    table("Sessions one after another; the aim: memory does not grow", ("recorder", "sessions", "MB after 50", "MB at the end", "growth", "ms a session"), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a rough look in about two minutes")
    parser.add_argument("--only", choices=["ops", "decode", "sessions", "soak"], action="append", help="only this part; again for more")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--reference", default="none", help="a Python with torch and transformers, or none")
    parser.add_argument("--recorder-bench", default="build/bench/recorder_bench")
    parser.add_argument("--python-events", type=int, default=200_000, help="most events to record with torch.profiler")
    o = parser.parse_args()
    quick = o.quick
    o.ops, o.pairs, o.tokens, o.decode_pairs = (20_000, 7, 16, 7) if quick else (50_000, 15, 32, 15)
    o.events, o.sessions = ((50_000,), 100) if quick else ((50_000, 200_000, 1_000_000), 1000)
    bench = Bench(o)

    print(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), f"{os.cpu_count()} cores, load", " ".join(f"{x:.1f}" for x in os.getloadavg()))
    if os.getloadavg()[0] > 0.5 * os.cpu_count():
        print("this machine is busy: take the figures for what they are")
    print("ratios are medians of pairs, with their 95 % intervals in brackets")
    started = time.monotonic()
    for part, run in (("ops", per_op), ("decode", decode), ("sessions", sessions), ("soak", soak)):
        if not o.only or part in o.only:
            run(bench, o)
            sys.stdout.flush()
    for note in NOTES:
        print(f"\n{note}")
    print(f"\n{time.monotonic() - started:.0f} s")


main()
