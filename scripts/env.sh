#!/usr/bin/env bash
# Prints the line that plain `go build` and `go test` need: eval "$(make env)".
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
printf 'export CGO_LDFLAGS=%q\n' "$(cgo_ldflags "$ROOT/build")"
