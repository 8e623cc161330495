#!/usr/bin/env bash
# Makes a small random checkpoint, runs one prompt through all stages with profiling, and says where everything is.
# demo.sh [FOLDER]: with a folder, all files go below it; otherwise into demo/ and profiles/.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

folder=${1:-demo}
profiles=${1:+$1/}profiles
rm -rf "$folder/output"

if [[ ! -e $folder/checkpoint/config.json ]]; then
  bin/omni-run make-checkpoint --family qwen2_5_omni --preset tiny --seed 1 --out "$folder/checkpoint" >/dev/null
fi
bin/omni-run --model "$folder/checkpoint" --prompt "Tell me in one sentence why the sky is blue." \
  --seed 1 --max-tokens 48 --output-dir "$folder/output" --profile-dir "$profiles" --log-stats
cat <<TEXT

The weights are random, so the text is noise and the speech is a hiss: what the demo shows is the whole path.
  text and speech  $folder/output   (.txt, .wav: 24 kHz, mono)
  traces           $profiles/*.pt.trace.json.gz   open them in https://ui.perfetto.dev, one or all at once
  operator tables  $profiles/profiler_out_*.txt   less -S
Try your own: bin/omni-run --model DIR --prompt TEXT; bin/omni-run --help shows more.
TEXT
