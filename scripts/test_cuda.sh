#!/usr/bin/env bash
# The build with the tag cuda on a machine that needs no GPU: it links, starts, says what is missing, and serves
# requests on the CPU. A stub stands in for the driver to see how far opening CUDA gets with one. The commands go to
# build/cuda; the C++ library is that of the plain build, which is the same. Decoding of GPU records is tested by ctest.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

TAGS=cuda scripts/deps.sh
mkdir -p build/cuda
[[ -e build/build.ninja ]] || scripts/build.sh
ninja -C build -j "$JOBS" --quiet omni cgotorch omni_cuda stub_driver cupti_decoder_test gpu_trace_test cuda_plugin_test synthetic_gpu_trace
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

worker=$ROOT/build/cuda/bin/omni-worker
with_stub() { env LD_LIBRARY_PATH="$ROOT/build/stub_driver" STUB_DEVICES="$1" "$worker" --version; }

expect 0 'CUDA: no CUDA device: the NVIDIA driver cannot be used: cuInit: CUDA_ERROR_NO_DEVICE' with_stub -1
expect 0 'CUDA: no CUDA device: the NVIDIA driver shows none' with_stub 0
if compgen -G "$OMNI_CUDA_DIR/lib/libcublas.so*" >/dev/null; then
  echo "skipped: the CUDA libraries are here, so what is said without them cannot be seen"
else
  expect 0 "CUDA: no CUDA device: libtorch's CUDA part cannot be opened" with_stub 1
fi

folder=build/cuda/checkpoint
rm -rf build/cuda/output
[[ -e $folder/config.json ]] || build/cuda/bin/omni-run make-checkpoint --family qwen2_5_omni --preset tiny --seed 1 --out "$folder" >/dev/null
generate() {
  OMNI_WORKER=$worker build/cuda/bin/omni-run --model "$folder" --prompt "Hello." --seed 1 --max-tokens 8 \
    --output-dir build/cuda/output "$@"
}
expect 0 'output_[^ ]*\.wav' generate

if ldconfig -p | grep -q 'libcuda\.so\.1 '; then
  echo "skipped: this machine has an NVIDIA driver, so what is said without one cannot be seen"
else
  expect 0 'CUDA: no CUDA device: no NVIDIA driver is installed \(libcuda\.so\.1' "$worker" --version
  expect 1 'device "cuda:0": no CUDA device: no NVIDIA driver is installed' generate --device cuda:0
  expect 1 'recorder "cuda": no CUDA device: no NVIDIA driver is installed' generate --profiler-config profiler=cuda
fi
