#!/usr/bin/env bash
# Everything that CI runs, cheapest first. Each step prints its time; what was skipped is listed with its reason and
# counted at the end.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

scripts/deps.sh lint
step "format" scripts/lint.sh --format-only
step "build" scripts/build.sh all
step "lint" scripts/lint.sh --analysis-only
step "C++ tests" cpp_test
step "Go tests, race detector, shuffled" go_test "$ROOT/build" -race ./...
step "Go tests of torch, address and undefined-behaviour sanitizers" scripts/sanitize.sh
step "CUDA build, without a GPU" scripts/test_cuda.sh
step "demo" scripts/demo.sh build/demo
step "clients" scripts/clients.sh
step "traces in Perfetto, HTA and TensorBoard" scripts/check_traces.sh
steps_report
