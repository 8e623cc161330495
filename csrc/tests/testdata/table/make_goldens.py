"""Records the events of a few workloads with torch.profiler, together with the table that torch prints for them.

table_test.cc feeds the events to our table and compares the text. Run with torch 2.15.0 in this folder:
    python make_goldens.py
Times differ from run to run, so a new run changes every file; events and table of one file belong together. They are
rounded to 125 ns, which is exact in binary fractions of a microsecond: torch adds up floating point microseconds, and
without rounding its last digit and the order of equal rows would be luck.
"""

import json
from pathlib import Path

import torch
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile, record_function


def mixed():
    """Nested ops, annotations, steps, an op that calls itself to convert its operand."""
    a = torch.rand(64, 64)
    for step in range(3):
        with record_function(f"ProfilerStep#{step}"):
            with record_function("thinker.layers.0.self_attn"):
                b = torch.mm(a, a)
                c = torch.softmax(b, -1).add_(2.5)
            with record_function("a module path that is much longer than the column of names can show"):
                d = torch.cat([b, c]).sum()
            a = a + d * 1e-6
    torch.einsum("ij,jk->ik", a, a)


def convolutions():
    x = torch.rand(1, 8, 256)
    w = torch.rand(8, 8, 7)
    for _ in range(4):
        x = torch.nn.functional.conv1d(x, w, padding=3).tanh()
    torch.nn.functional.scaled_dot_product_attention(x.view(1, 1, 8, 256), x.view(1, 1, 8, 256), x.view(1, 1, 8, 256))


def releases():
    """Memory that is released inside other ops and outside of all."""
    with record_function("é wide ✓ name"):
        a = torch.ones(1 << 18)
        b = a.clone()
    del a
    b.resize_(1 << 21)
    del b
    c = torch.ones(512, 1025)
    c.mean()


def many_names():
    """More rows than the table shows."""
    a = torch.ones(2)
    for i in range(120):
        with record_function(f"scope {i}"):
            a.neg()


CASES = {
    "mixed": (mixed, {}),
    "mixed_memory": (mixed, {"profile_memory": True}),
    "mixed_flops": (mixed, {"with_flops": True}),
    "convolutions": (convolutions, {"profile_memory": True, "with_flops": True}),
    "releases": (releases, {"profile_memory": True}),
    "many_names": (many_names, {}),
}


GRID_NS = 125


def rounded(ns):
    return ns // GRID_NS * GRID_NS


class RoundedEvent:
    """An event of torch's profiler with rounded times."""

    def __init__(self, event):
        self._event = event

    def __getattr__(self, name):
        return getattr(self._event, name)

    def start_ns(self):
        return rounded(self._event.start_ns())

    def end_ns(self):
        return rounded(self._event.end_ns())


class RoundedResult:
    """A result of torch's profiler with rounded times."""

    def __init__(self, result):
        self._events = [RoundedEvent(event) for event in result.events()]
        self._start_ns = rounded(result.trace_start_ns())

    def events(self):
        return self._events

    def trace_start_ns(self):
        return self._start_ns


def table_of(prof, result, options):
    """What prof.key_averages().table() does, from another result."""
    events = EventList(
        prof.profiler._parse_kineto_results(result),
        use_device=None,
        profile_memory=options.get("profile_memory", False),
        with_flops=options.get("with_flops", False),
    )
    events._build_tree()
    return events.key_averages().table(sort_by="self_cpu_time_total", row_limit=100)


def record(workload, options):
    workload()
    with profile(activities=[ProfilerActivity.CPU], **options) as prof:
        workload()
    events = []
    result = RoundedResult(prof.profiler.kineto_results)
    for event in result.events():
        if event.is_hidden_event():
            continue
        row = {
            "name": event.name(),
            "thread": event.start_thread_id(),
            "start_ns": event.start_ns(),
            "end_ns": event.end_ns(),
            "annotation": bool(event.is_user_annotation()),
            "flops": event.flops(),
        }
        if event.name() == "[memory]":
            row = {"name": event.name(), "thread": row["thread"], "start_ns": row["start_ns"], "bytes": event.nbytes()}
        events.append(row)
    return {"options": options, "events": events, "table": table_of(prof, result, options)}


if __name__ == "__main__":
    for name, (workload, options) in CASES.items():
        golden = record(workload, options)
        lines = ",\n".join(json.dumps(event, ensure_ascii=False) for event in golden["events"])
        text = (
            f'{{"options": {json.dumps(golden["options"])},\n"table": {json.dumps(golden["table"], ensure_ascii=False)},\n'
            f'"events": [\n{lines}\n]}}\n'
        )
        Path(f"{name}.json").write_text(text)
