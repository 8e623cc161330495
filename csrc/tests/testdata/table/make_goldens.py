"""Records the events of a few workloads with torch.profiler, together with the table that torch prints for them.

table_test.cc feeds the events to our table and compares the text. Run with torch 2.15.0 in this folder, for all files or
for some:
    python make_goldens.py [NAME...]
Times differ from run to run, so a new run changes every file; events and table of one file belong together. They are
rounded to 125 ns, which is exact in binary fractions of a microsecond: torch adds up floating point microseconds, and
without rounding its last digit and the order of equal rows would be luck.
"""

import json
import sys
from pathlib import Path

import torch
from torch._C._autograd import DeviceType
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
    "device": (mixed, {"profile_memory": True}),
}
# Workloads that are told to have run on a device: no GPU is needed to see how torch prints what one did.
ON_DEVICE = {"device"}
# What each call of an op launches: kernels and their times.
KERNELS = {
    "aten::mm": [("void gemm<float, 64>(float const*)", 31000)],
    "aten::_softmax": [("softmax_warp_forward", 7500), ("Memset (Device)", 1250)],
    "aten::add": [("elementwise_kernel", 2250)],
    "aten::cat": [("CatArrayBatchedCopy", 4125)],
}
# Allocations from this size on are the device's.
DEVICE_BYTES = 16384


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


class DeviceAllocation(RoundedEvent):
    """An allocation that is told to be the device's."""

    def device_type(self):
        return DeviceType.CUDA


class Kernel(RoundedEvent):
    """Work on a device that an op launched."""

    def __init__(self, op, name, duration_ns):
        super().__init__(op._event)
        self._name = name
        self._duration_ns = duration_ns

    def name(self):
        return self._name

    def start_ns(self):
        return super().end_ns()

    def end_ns(self):
        return self.start_ns() + self._duration_ns

    def device_type(self):
        return DeviceType.CUDA

    def linked_correlation_id(self):
        return self._event.correlation_id()


class RoundedResult:
    """A result of torch's profiler with rounded times, and, on a device, with work and memory of that."""

    def __init__(self, result, device):
        self._events = [RoundedEvent(event) for event in result.events()]
        self._start_ns = rounded(result.trace_start_ns())
        if not device:
            return
        self._events = [DeviceAllocation(e._event) if on_device(e) else e for e in self._events]
        self._events += [Kernel(e, *kernel) for e in self._events for kernel in KERNELS.get(e.name(), [])]

    def events(self):
        return self._events

    def trace_start_ns(self):
        return self._start_ns


def on_device(event):
    return event.name() == "[memory]" and abs(event.nbytes()) >= DEVICE_BYTES


def table_of(prof, result, options, device):
    """What prof.key_averages().table() does, from another result."""
    prof.profiler.use_device = "cuda" if device else None
    events = EventList(
        prof.profiler._parse_kineto_results(result),
        use_device=prof.profiler.use_device,
        profile_memory=options.get("profile_memory", False),
        with_flops=options.get("with_flops", False),
    )
    events._build_tree()
    sort_by = "self_cuda_time_total" if device else "self_cpu_time_total"
    return events.key_averages().table(sort_by=sort_by, row_limit=100)


def record(workload, options, device):
    workload()
    with profile(activities=[ProfilerActivity.CPU], **options) as prof:
        workload()
    events = []
    result = RoundedResult(prof.profiler.kineto_results, device)
    for event in result.events():
        if event.is_hidden_event() or isinstance(event, Kernel):
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
            if device and on_device(event):
                row["device"] = True
        elif device and event.name() in KERNELS:
            row["kernels"] = [{"name": name, "ns": ns} for name, ns in KERNELS[event.name()]]
        events.append(row)
    return {"options": options, "events": events, "table": table_of(prof, result, options, device)}


if __name__ == "__main__":
    for name, (workload, options) in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        golden = record(workload, options, name in ON_DEVICE)
        lines = ",\n".join(json.dumps(event, ensure_ascii=False) for event in golden["events"])
        text = (
            f'{{"options": {json.dumps(golden["options"])},\n"table": {json.dumps(golden["table"], ensure_ascii=False)},\n'
            f'"events": [\n{lines}\n]}}\n'
        )
        Path(f"{name}.json").write_text(text)
