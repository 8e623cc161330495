#!/usr/bin/env bash
# Speed of a whole pipeline on the checkpoint "small", beside transformers on the same machine: bench.sh [FLAG...].
# The reference runs in a Python environment of its own: OMNI_REFERENCE_PYTHON, or .deps/reference, which is made on
# first use (several GB). OMNI_REFERENCE_PYTHON=none measures without it. Flags go to scripts/bench.py.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

checkpoint=build/bench/small
[[ -e $checkpoint/config.json ]] || bin/omni-run make-checkpoint --preset small --seed 1 --out "$checkpoint" >/dev/null

python=${OMNI_REFERENCE_PYTHON:-$ROOT/.deps/reference/bin/python}
if [[ -z ${OMNI_REFERENCE_PYTHON:-} && ! -x $python ]]; then
  echo "making .deps/reference: transformers and torch with what they need"
  python3 -m venv .deps/reference
  .deps/reference/bin/pip install --quiet torch==2.15.0 transformers==5.23.0 ||
    die "could not install the reference; OMNI_REFERENCE_PYTHON=none make bench measures without it"
fi
exec python3 scripts/bench.py --checkpoint "$checkpoint" --reference "$python" "$@"
