#!/usr/bin/env bash
# The build with the tag cuda on a machine that needs no GPU: it links, starts, says what is missing, and serves requests
# on the CPU; without the CUDA libraries, and with the real ones (3 GB in .deps, fetched once). A stub stands in for the
# driver to see how far opening CUDA gets with one. The commands go to build/cuda; the C++ library is that of the plain
# build, which is the same. Decoding of GPU records is tested by ctest.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

[[ $OMNI_TORCH_DIR == "$ROOT/.deps/torch" ]] && CUDA_LIBS=1 # an own libtorch has its own
TAGS=cuda CUDA_LIBS=${CUDA_LIBS:-0} scripts/deps.sh
mkdir -p build/cuda
[[ -e build/build.ninja ]] || scripts/build.sh
compile build omni cgotorch omni_cuda stub_driver cupti_decoder_test gpu_trace_test cuda_plugin_test synthetic_gpu_trace
CGO_LDFLAGS=$(cgo_ldflags "$ROOT/build") go build -tags cuda -o build/cuda/bin/ ./cmd/...
ctest --test-dir build --output-on-failure --no-tests=error -R '^(cupti_decoder|gpu_trace|cuda_plugin)_test$' | tail -n 3

# expect STATUS PATTERN COMMAND...: the command ends with this status and says something that the pattern matches.
expect() {
  local want=$1 pattern=$2 output status=0
  shift 2
  output=$("$@" 2>&1) || status=$?
  if ((status != want)) || ! grep -qE "$pattern" <<<"$output"; then
    printf '%s\nended with %d, expected %d and a match of: %s\nfrom: %s\n' "$output" "$status" "$want" "$pattern" "$*" >&2
    exit 1
  fi
  printf 'ok: %s\n' "$(grep -oE -m 1 "$pattern.*" <<<"$output")"
}

# Where libtorch looks for the CUDA libraries there are none: links to libtorch's own, and to the two that every build needs.
without=$ROOT/build/cuda/without
rm -rf "$without"
mkdir -p "$without/torch/lib" "$without/nvidia/cu13/lib"
ln -s "$OMNI_TORCH_DIR"/lib/*.so* "$without/torch/lib/"
ln -s "$OMNI_CUDA_DIR"/lib/lib{cudart,cupti}.so.13 "$without/nvidia/cu13/lib/"

# Each of these runs a command: without the CUDA libraries or with them, and with a driver that shows so many devices.
without_libraries() { env LD_LIBRARY_PATH="$without/torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$@"; }
with_driver() {
  local devices=$1
  shift
  LD_LIBRARY_PATH=$ROOT/build/stub_driver STUB_DEVICES=$devices "$@"
}

worker=$ROOT/build/cuda/bin/omni-worker
folder=build/cuda/checkpoint
rm -rf build/cuda/output build/cuda/profiles
[[ -e $folder/config.json ]] || build/cuda/bin/omni-run make-checkpoint --family qwen2_5_omni --preset tiny --seed 1 --out "$folder" >/dev/null
version() { "$@" "$worker" --version; }
generate() { # OPTION... -- RUNNER...
  local options=()
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  OMNI_WORKER=$worker "$@" build/cuda/bin/omni-run --model "$folder" --prompt "Hello." --seed 1 --max-tokens 8 \
    --output-dir build/cuda/output "${options[@]}"
}

no_runtime='no CUDA device: the CUDA runtime cannot use the NVIDIA driver: cudaGetDeviceCount: '
for libraries in env without_libraries; do
  [[ $libraries == env ]] && echo "with the CUDA libraries:" || echo "without the CUDA libraries:"
  expect 0 'CUDA: no CUDA device: the NVIDIA driver cannot be used: cuInit: CUDA_ERROR_NO_DEVICE' version with_driver -1 "$libraries"
  expect 0 'CUDA: no CUDA device: the NVIDIA driver shows none' version with_driver 0 "$libraries"
  expect 0 'output_[^ ]*\.wav' generate -- with_driver 1 "$libraries"
  if ldconfig -p | grep -q 'libcuda\.so\.1 '; then
    skip "this machine has an NVIDIA driver, so what is said without one cannot be seen"
    continue
  fi
  expect 0 'CUDA: no CUDA device: no NVIDIA driver is installed \(libcuda\.so\.1' version "$libraries"
  expect 0 'output_[^ ]*\.wav' generate -- "$libraries"
  expect 1 'device "cuda:0": no CUDA device: no NVIDIA driver is installed' generate --device cuda:0 -- "$libraries"
  expect 1 'profiler=cuda has nothing to watch, since no stage runs on a GPU' generate --profiler-config profiler=cuda -- "$libraries"
done
expect 0 "CUDA: no CUDA device: libtorch's CUDA part cannot be opened \(lib[a-zA-Z]*\.so" version with_driver 1 without_libraries
if ((${CUDA_LIBS:-0} == 0)); then
  skip "opening libtorch's CUDA part, since OMNI_TORCH_DIR=$OMNI_TORCH_DIR may have none"
else
  expect 0 "CUDA: $no_runtime" version with_driver 1
  expect 1 "device \"cuda:0\": $no_runtime" generate --device cuda:0 -- with_driver 1
  # Profilers look for a GPU when they start.
  for recorder in stream kineto; do
    expect 0 "stage-2_s1[^ ]*\.json\.gz" generate --profile-dir "build/cuda/profiles/$recorder" --profiler-config "recorder=$recorder" -- with_driver 1
  done
fi
