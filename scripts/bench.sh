#!/usr/bin/env bash
# Speed of a whole pipeline on the checkpoint "small", beside transformers on the same machine: bench.sh [FLAG...].
# OMNI_REFERENCE_PYTHON=none measures without it (see reference_python in lib.sh). Flags go to scripts/bench.py.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

checkpoint=$(bench_checkpoint)
python=$(reference_python)
exec python3 scripts/bench.py --checkpoint "$checkpoint" --reference "$python" "$@"
