#!/usr/bin/env bash
# Builds the C++ library with address and undefined-behaviour sanitizers and runs the tests of package torch over it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
scripts/deps.sh

mkdir -p build
scripts/build.sh sanitize >build/sanitize.log || { tail -n 50 build/sanitize.log >&2; die "the sanitized build failed"; }
# Memory that libtorch keeps for the life of the process is no leak of ours.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
go_test "$ROOT/build/sanitize" -asan ./torch/...
