#!/usr/bin/env bash
# Everything that CI runs, cheapest first. Each step prints its time, and skipped tests are listed with their reason.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# go_test BUILD_DIR FLAG... PACKAGE...: go test against the C++ library of that build. Prints one line a package,
# failures in full, and at the end the number of tests, and of skipped ones each with its reason.
go_test() {
  local build=$1
  shift
  CGO_LDFLAGS=$(cgo_ldflags "$build") "$gotestsum" --format pkgname-and-test-fails -- -tags "$TAGS" -shuffle=on "$@"
}

sanitized() {
  scripts/build.sh sanitize >build/sanitize.log || { tail -n 50 build/sanitize.log >&2; return 1; }
  # Memory that libtorch keeps for the life of the process is no leak of ours.
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    go_test "$ROOT/build/sanitize" -asan ./torch/...
}

scripts/deps.sh lint
gotestsum=$(tool gotestsum gotest.tools/gotestsum v1.13.0)
step "format" scripts/lint.sh --format-only
step "build" scripts/build.sh
step "lint" scripts/lint.sh --analysis-only
step "C++ tests" ctest --test-dir build --output-on-failure --no-tests=error -j "$JOBS"
step "Go tests, race detector, shuffled" go_test "$ROOT/build" -race ./...
step "C interface under address and undefined-behaviour sanitizers" sanitized
step "demo" scripts/demo.sh build/demo
steps_report
