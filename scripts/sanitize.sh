#!/usr/bin/env bash
# Builds the C++ library with address and undefined-behaviour sanitizers into build/sanitize and runs the tests of package
# torch over it: the C functions over engines without weights, and the real networks against their goldens.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

[[ -e build/lib/libcgotorch.so ]] || scripts/build.sh
scripts/build.sh sanitize

# Memory that libtorch keeps for the life of the process is no leak of ours; the tests count live handles themselves.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
# One package at a time: each runs its networks on all cores.
go_test "$ROOT/build/sanitize" -asan -p 1 -timeout 30m ./torch/...
