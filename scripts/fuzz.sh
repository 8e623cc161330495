#!/usr/bin/env bash
# Runs every fuzz target of every package for FUZZTIME (60s), one after another, and stops at the first failure. Making an
# input that reaches new code smaller is cut short: by default that alone takes up to a minute.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
CGO_LDFLAGS=$(cgo_ldflags "$ROOT/build")
export CGO_LDFLAGS

mapfile -t packages < <(git grep -lE '^func Fuzz[A-Z]' -- '*_test.go' | xargs -r -n1 dirname | sort -u)
((${#packages[@]} > 0)) || die "no package has a fuzz target"
for package in "${packages[@]}"; do
  mapfile -t targets < <(go test -list '^Fuzz' "./$package" | grep '^Fuzz')
  for target in "${targets[@]}"; do
    step "$package $target" go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-60s}" -fuzzminimizetime 20x -parallel "$JOBS" "./$package"
  done
done
step "api: 100,000 random requests" env OMNI_FUZZ_REQUESTS=100000 go test -run '^TestRandomRequests$' -count 1 ./api
steps_report
