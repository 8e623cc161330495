# Shared by the other scripts (sourced): the root, the environment of Go's linker, pinned tools, timed steps.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit

OMNI_TORCH_DIR=${OMNI_TORCH_DIR:-$ROOT/.deps/torch}
OMNI_CUDA_DIR=${OMNI_CUDA_DIR:-$ROOT/.deps/nvidia/cu13}
JOBS=${JOBS:-$(nproc)}
TAGS=${TAGS:-}
export OMNI_TORCH_DIR OMNI_CUDA_DIR JOBS TAGS

# Keeps pip and Ninja quiet in a log. On a terminal they show how far they are.
QUIET=(--quiet)
if [[ -t 1 ]]; then QUIET=(); fi
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# The linker flags that plain `go build` and `go test` need: where libomni.so, libcgotorch.so and libtorch lie.
# build/link holds a linker script in place of libtorch.so, whose real file would pull in every CUDA library.
# $1 is the CMake build folder; what it lacks (the sanitized one has no libcgotorch.so) comes from the ordinary one.
cgo_ldflags() {
  local dir
  printf -- '-L%s' "$1/link"
  for dir in "$1/lib" "$ROOT/build/lib" "$OMNI_TORCH_DIR/lib"; do
    printf -- ' -L%s -Wl,-rpath,%s' "$dir" "$dir"
  done
  printf -- ' -Wl,-rpath-link,%s' "$OMNI_CUDA_DIR/lib"
}

# compile DIR TARGET...: builds C++ targets, or all of them, in a folder that CMake has configured.
compile() {
  local dir=$1
  shift
  if ((${#QUIET[@]} > 0)) && ! ninja -C "$dir" -n "$@" | grep -q 'no work to do'; then
    echo "compiling C++ in $dir (minutes, the first time)"
  fi
  NINJA_STATUS='[%f/%t, %e s] ' ninja -C "$dir" -j "$JOBS" "${QUIET[@]}" "$@"
}

# Prints the path of a pinned Go tool, after installing it on first use: tool NAME MODULE VERSION.
tool() {
  local dir=$ROOT/.deps/tools/$1-$3
  if [[ ! -x $dir/$1 ]]; then
    echo "installing $1 $3" >&2
    GOFLAGS='' GOBIN=$dir go install "$2@$3" >&2 || die "could not install $1 $3 (go install $2@$3)"
  fi
  printf '%s' "$dir/$1"
}

# Prints a Python that has the reference, for benchmarks: OMNI_REFERENCE_PYTHON, which may be none, or .deps/reference,
# which is made on first use (several GB).
reference_python() {
  local environment=$ROOT/.deps/reference
  if [[ -n ${OMNI_REFERENCE_PYTHON:-} ]]; then
    printf '%s' "$OMNI_REFERENCE_PYTHON"
    return
  fi
  if [[ ! -x $environment/bin/python ]]; then
    echo "making .deps/reference: transformers and torch with what they need" >&2
    python3 -m venv "$environment"
    "$environment/bin/pip" install "${QUIET[@]}" torch==2.15.0 transformers==5.23.0 >&2 ||
      die "could not install the reference; OMNI_REFERENCE_PYTHON=none measures without it"
  fi
  printf '%s' "$environment/bin/python"
}

# The checkpoint that benchmarks run on.
bench_checkpoint() {
  local checkpoint=build/bench/small
  [[ -e $checkpoint/config.json ]] || bin/omni-run make-checkpoint --preset small --seed 1 --out "$checkpoint" >/dev/null
  printf '%s' "$checkpoint"
}

# go_test BUILD_DIR FLAG... PACKAGE...: go test against the C++ library of that build. Prints one line a package,
# failures in full, and at the end the number of tests, and of skipped ones each with its reason.
go_test() {
  local build=$1 gotestsum events skipped status=0
  shift
  gotestsum=$(tool gotestsum gotest.tools/gotestsum v1.13.0)
  events=$(mktemp)
  CGO_LDFLAGS=$(cgo_ldflags "$build") "$gotestsum" --format pkgname-and-test-fails --jsonfile "$events" -- \
    -tags "$TAGS" -shuffle=on "$@" || status=$?
  skipped=$(grep -c '"Action":"skip".*"Test":' "$events" || true) # a package without tests is skipped, too
  rm "$events"
  ((skipped == 0)) || skip "$skipped Go tests, whose reasons are listed above"
  return "$status"
}

# All C++ tests of the plain build, and what they skipped: an executable of which any test was skipped, and none failed, is one
# that ctest says did not run.
cpp_test() {
  local reason
  ctest --test-dir build --output-on-failure --no-tests=error -j "$JOBS" || return
  while IFS= read -r reason; do
    skip "$reason"
  done < <(awk '/: Skipped$/ { getline why } /^\[  SKIPPED \] .* ms\)$/ { print $4 ": " why; why = "" }' build/Testing/Temporary/LastTest.log)
}

# skip REASON: tells that something was not checked on this machine, and why. steps_report counts what all steps have skipped:
# scripts that a step runs have the same OMNI_SKIPS.
skip() {
  printf 'skipped: %s\n' "$*"
  [[ -z ${OMNI_SKIPS:-} ]] || printf '%s: %s\n' "$OMNI_STEP" "$*" >>"$OMNI_SKIPS"
}

# step NAME COMMAND...: runs the command, prints what it took by the clock and of CPU, and remembers that for steps_report.
# On a machine that does other things at the same time, the CPU time is the one to compare.
STEP_LINES=()
step() {
  local name=$1 started=$EPOCHREALTIME status=0 before after took
  shift
  if [[ -z ${OMNI_SKIPS:-} ]]; then
    mkdir -p "$ROOT/build"
    export OMNI_SKIPS=$ROOT/build/skips.txt
    : >"$OMNI_SKIPS"
  fi
  export OMNI_STEP=$name
  printf '\n=== %s\n' "$name"
  read -ra before <"/proc/$BASHPID/stat"
  "$@" || status=$?
  read -ra after <"/proc/$BASHPID/stat" # fields 16 and 17: hundredths of a second that ended children took
  took=$(awk -v a="$started" -v b="$EPOCHREALTIME" -v c=$((after[15] + after[16] - before[15] - before[16])) \
    'BEGIN { printf "%8.1f s, %7.1f s of CPU", b - a, c / 100 }')
  STEP_LINES+=("$took  $name")
  if ((status != 0)); then
    printf '=== %s: FAILED after %s (exit %d)\n' "$name" "$took" "$status" >&2
    steps_report >&2
    exit "$status"
  fi
  printf '=== %s: %s\n' "$name" "$took"
}

# beside NAME COMMAND...: a step that goes on beside those that follow, for those that leave cores idle or wait for the network.
# `beside_ended` waits for all of them and prints what they have printed. The step in which one ends counts its CPU time as well.
BESIDE_NAMES=() BESIDE_PIDS=() BESIDE_OUTPUTS=()
beside() {
  BESIDE_NAMES+=("$1") BESIDE_OUTPUTS+=("$(mktemp)")
  (step "$@") >"${BESIDE_OUTPUTS[-1]}" 2>&1 &
  BESIDE_PIDS+=("$!")
  trap 'wait' EXIT # nothing is left running when a step fails
}

beside_ended() {
  local i status=0
  for i in "${!BESIDE_PIDS[@]}"; do
    wait "${BESIDE_PIDS[i]}" || status=$?
    cat "${BESIDE_OUTPUTS[i]}"
    STEP_LINES+=("$(sed -nE "s/^=== ${BESIDE_NAMES[i]}: (.* of CPU)\$/\\1/p" "${BESIDE_OUTPUTS[i]}")  ${BESIDE_NAMES[i]}, beside others")
    rm "${BESIDE_OUTPUTS[i]}"
  done
  ((status == 0)) || exit "$status"
}

steps_report() {
  local skips
  printf '\nTime of each step:\n'
  printf '%s\n' "${STEP_LINES[@]}"
  mapfile -t skips <"$OMNI_SKIPS"
  printf '\nSkipped on this machine: %d\n' "${#skips[@]}"
  ((${#skips[@]} == 0)) || printf '  %s\n' "${skips[@]}"
}
