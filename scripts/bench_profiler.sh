#!/usr/bin/env bash
# What profiling costs: bench_profiler.sh [--quick] [FLAG...]. Both recorders and, in an environment of its own, Python's
# torch.profiler on the same operators: OMNI_REFERENCE_PYTHON, or .deps/reference, which is made on first use (several GB).
# OMNI_REFERENCE_PYTHON=none measures without it. Flags go to scripts/bench_profiler.py.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

[[ -x build/bench/recorder_bench ]] || die "build/bench/recorder_bench is missing: run make build"
checkpoint=build/bench/small
[[ -e $checkpoint/config.json ]] || bin/omni-run make-checkpoint --preset small --seed 1 --out "$checkpoint" >/dev/null

python=${OMNI_REFERENCE_PYTHON:-$ROOT/.deps/reference/bin/python}
if [[ -z ${OMNI_REFERENCE_PYTHON:-} && ! -x $python ]]; then
  echo "making .deps/reference: transformers and torch with what they need"
  python3 -m venv .deps/reference
  .deps/reference/bin/pip install --quiet torch==2.15.0 transformers==5.23.0 ||
    die "could not install the reference; OMNI_REFERENCE_PYTHON=none make bench-profiler measures without it"
fi
exec python3 scripts/bench_profiler.py --checkpoint "$checkpoint" --reference "$python" "$@"
