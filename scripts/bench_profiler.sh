#!/usr/bin/env bash
# What profiling costs: bench_profiler.sh [--quick] [FLAG...]. Both recorders and, in an environment of its own, Python's
# torch.profiler on the same operators. OMNI_REFERENCE_PYTHON=none measures without it (see reference_python in lib.sh).
# Flags go to scripts/bench_profiler.py.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

[[ -x build/bench/recorder_bench ]] || die "build/bench/recorder_bench is missing: run make build-tests"
checkpoint=$(bench_checkpoint)
python=$(reference_python)
exec python3 scripts/bench_profiler.py --checkpoint "$checkpoint" --reference "$python" "$@"
