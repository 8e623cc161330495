#!/usr/bin/env bash
# Everything that CI runs, cheapest first. Each step prints its time; what was skipped is listed with its reason and
# counted at the end.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# Tests of pace and of memory, whose files have the build tag !race: under the race detector they would measure that.
measuring_tests() {
  local files tests packages
  mapfile -t files < <(git grep -l --untracked '^//go:build !race$' -- '*_test.go')
  ((${#files[@]} > 0)) || die "no test file has the build tag !race"
  tests=$(sed -nE 's/^func (Test[A-Za-z0-9_]+)\(.*/\1/p' "${files[@]}" | paste -sd '|')
  mapfile -t packages < <(printf './%s\n' "${files[@]%/*}" | sort -u)
  go_test "$ROOT/build" -p 1 -run "^($tests)\$" "${packages[@]}"
}

scripts/deps.sh lint
step "format" scripts/lint.sh --format-only
step "build" scripts/build.sh all
step "lint" scripts/lint.sh --analysis-only
step "C++ tests" cpp_test
step "Go tests, race detector, shuffled" go_test "$ROOT/build" -race ./...
step "Go tests of pace and memory" measuring_tests
beside "Go tests of torch, address and undefined-behaviour sanitizers" scripts/sanitize.sh
step "CUDA build, without a GPU" scripts/test_cuda.sh
beside "traces in Perfetto, HTA and TensorBoard" scripts/check_traces.sh
step "demo" scripts/demo.sh build/demo
step "clients" scripts/clients.sh
beside_ended
steps_report
