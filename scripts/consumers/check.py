"""Opens the traces of profile sessions with the programs that people open them with, and compares what those see with what
is in the files: check.py ENGINE_FOLDER FOLDER... [--kernels FOLDER]. A folder is a profile directory of three workers; the
one after --kernels holds kernels and no requests."""

import argparse
import collections
import concurrent.futures
import contextlib
import gzip
import io
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import warnings

HERE = pathlib.Path(__file__).parent
faults = []


def check(where, what, got, want):
    """Notes a difference."""
    if got != want:
        faults.append(f"{where}: {what}: got {str(got)[:300]}, want {str(want)[:300]}")


def events_of(path):
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        return json.load(file)["traceEvents"]


def perfetto(engine, path):
    """Every slice, arrow and counter of the file is in the engine, as often and as long, and nothing was lost."""
    run = subprocess.run(["node", HERE / "perfetto.mjs", engine, path], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        faults.append(f"{path}: Perfetto's trace processor failed: {run.stderr[-600:]}")
        return
    seen = json.loads(run.stdout)
    counts, durations, phases = collections.Counter(), collections.Counter(), collections.Counter()
    for event in events_of(path):
        phases[event["ph"]] += 1
        if event["ph"] in "Xi":
            counts[event["name"]] += 1
            durations[event["name"]] += round(event.get("dur", 0) * 1000)
    check(path, "faults", seen["faults"], [])
    check(path, "slices by name", {name: n for name, n, _ in seen["slices"]}, dict(counts))
    check(path, "durations by name", {name: ns for name, _, ns in seen["slices"]}, dict(durations))
    check(path, "arrows", seen["flows"], phases["f"])
    check(path, "counters", seen["counters"], phases["C"])
    merged = path.name.startswith("merged")
    if merged:
        check(path, "processes", [name for pid, name in seen["processes"] if pid and not name.startswith("GPU ")],
              ["Requests", "stage-0", "stage-1", "stage-2"])
        pairs = {(a, b) for a, b, _ in seen["arrows"]}
        check(path, "arrows from stage to stage", pairs, {("stage-0", "stage-1"), ("stage-1", "stage-2")})
    print(f"  Perfetto  {sum(counts.values()):8} slices {seen['flows']:6} arrows {seen['counters']:6} counters  {path.name}")


def hta(folder, gpu):
    """HTA takes the workers for the ranks of one job, and its analyses of kernels work where there are any."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    os.environ["HTA_DISABLE_NS_ROUNDING"] = "1"
    with contextlib.redirect_stdout(io.StringIO()):
        from hta.trace_analysis import TraceAnalysis

        analysis = TraceAnalysis(trace_dir=str(folder))
        ranks = {rank: len(frame) for rank, frame in analysis.t.get_all_traces().items()}
    check(folder, "HTA's ranks", sorted(ranks), [0, 1, 2])
    if gpu:
        with contextlib.redirect_stdout(io.StringIO()):
            kinds, kernels = analysis.get_gpu_kernel_breakdown(visualize=False)
            temporal = analysis.get_temporal_breakdown(visualize=False)
            spans = analysis.get_gpu_user_annotation_breakdown(visualize=False, num_kernels=10**6, duration_ratio=1.0)
            annotated = {rank: analysis.get_gpu_kernels_with_user_annotations(rank) for rank in ranks}
        check(folder, "HTA's temporal breakdown", sorted(temporal["rank"]), [0, 1, 2])
        check(folder, "HTA's kernels", kernels["rank"].nunique(), 3)
        # HTA looks for a kernel's annotations on the kernel's own track, and takes the innermost.
        for rank, path in enumerate(sorted(folder.glob("*.pt.trace.json*"))):
            inside = [e for e in events_of(path) if e.get("cat") == "gpu_user_annotation"]
            of_rank = spans[spans["rank"] == rank]
            check(folder, f"HTA's annotations on the GPU of rank {rank}", set(of_rank["name"]), {e["name"] for e in inside})
            names = set(annotated[rank]["s_user_annotation"]) - {""}
            check(folder, f"HTA's annotations of kernels of rank {rank}", "thinker.layers.0" in names and "ProfilerStep#1" in names, True)
        if not (temporal["kernel_time(us)"] > 0).all() or not (kinds["sum"] > 0).any():
            faults.append(f"{folder}: HTA sees no time in kernels:\n{temporal}\n{kinds}")
        print(f"  HTA       {sum(ranks.values()):8} events, {len(kernels)} kernels, "
              f"computing {temporal['compute_time_pctg'].mean():.1f} % of the time  {folder}")
    else:
        print(f"  HTA       {sum(ranks.values()):8} events of {len(ranks)} ranks  {folder}")


@contextlib.contextmanager
def tensorboard(folder):
    """Runs the server; yields a function that gets what the plugin says under a path."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", "0", "--load_fast", "false"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        log = []
        for line in server.stderr:
            log.append(line)
            if found := re.search(r"http://\S+", line):
                break
        else:
            raise RuntimeError("TensorBoard did not start: " + "".join(log[-20:]))
        threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would stop it

        def get(path, **arguments):
            address = urllib.parse.urljoin(found[0], "/data/plugin/pytorch_profiler/" + path)
            with urllib.request.urlopen(f"{address}?{urllib.parse.urlencode(arguments)}", timeout=120) as answer:
                return json.load(answer)

        yield get
    finally:
        server.terminate()
        server.wait()


def tensorboard_plugin(folder, gpu):
    """The plugin loads every worker of the session, and its server answers with what the trace holds."""
    with tempfile.TemporaryDirectory() as logs:
        os.symlink(folder.resolve(), pathlib.Path(logs, "session"))
        with tensorboard(logs) as get:
            deadline = time.monotonic() + 300
            # The server loads in threads of its own; before they begin it says that it is not loading.
            while ((loading := get("runs"))["loading"] or not loading["runs"]) and time.monotonic() < deadline:
                time.sleep(0.5)
            check(folder, "TensorBoard's runs", loading["runs"], ["session"])
            if not loading["runs"]:
                return
            views = get("views", run="session")
            workers = get("workers", run="session", view="Overview")
            check(folder, "TensorBoard's workers", sorted(w.split("_")[0] for w in workers), ["stage-0", "stage-1", "stage-2"])
            operators = get("operation/table", run="session", worker=workers[0], span=get("spans", run="session", worker=workers[0])[0],
                            group_by="Operation")["data"]
            if not any(row["name"].startswith("aten::") for row in operators):
                faults.append(f"{folder}: TensorBoard sees no operators in {workers[0]}: {str(operators)[:300]}")
            if gpu:
                check(folder, "TensorBoard's views", "Kernel" in [v if isinstance(v, str) else v["display_name"] for v in views], True)
    print(f"  TensorBoard {len(operators):6} operators of {workers[0]}, views {views}  {folder}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=pathlib.Path)
    parser.add_argument("folders", type=pathlib.Path, nargs="+")
    parser.add_argument("--kernels", type=pathlib.Path)
    options = parser.parse_args()
    traces = []
    for folder in options.folders + ([options.kernels] if options.kernels else []):
        workers, merged = sorted(folder.glob("*.pt.trace.json*")), sorted(folder.glob("*/merged.trace.json.gz"))
        check(folder, "number of traces", len(workers), 3)
        if folder != options.kernels:
            check(folder, "number of merged traces", len(merged), 1)
        traces += workers + merged
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: perfetto(options.engine, path), traces))
    for folder in options.folders:
        hta(folder, False)
        tensorboard_plugin(folder, False)
    if options.kernels:
        hta(options.kernels, True)
        tensorboard_plugin(options.kernels, True)
    for fault in faults:
        print("FAULT", fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


main()
