"""Writes the header of a trace of torch.profiler with all that it can be asked for, without the events.

recorder_test.cc compares ours with it. Run with torch 2.15.0 in this folder, on a machine without a GPU:
    python kineto_header.py
"""

import json
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

with profile(
    activities=[ProfilerActivity.CPU],
    record_shapes=True,
    profile_memory=True,
    with_stack=True,
    with_flops=True,
    with_modules=True,
) as recording:
    torch.ones(3).add(1)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "trace.json"
    recording.export_chrome_trace(str(path))
    header = json.loads(path.read_text())
del header["traceEvents"]
header.update(host_name="host", traceName="trace.json")
Path("kineto_header.json").write_text(json.dumps(header, indent=2) + "\n")
