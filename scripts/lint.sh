#!/usr/bin/env bash
# Style and static checks of everything: Go, C and C++, shell. All checks run, also after one has failed.
# lint.sh [--format-only | --analysis-only | --fix]; --fix rewrites formatting instead of checking. --analysis-only is
# what `make test` runs after the build: clang-tidy then checks the changed files only.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
scripts/deps.sh lint

gofumpt=$(tool gofumpt mvdan.cc/gofumpt v0.12.0)
golangci=$(tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint v2.15.0)
mapfile -t go_files < <(git ls-files -co --exclude-standard -- '*.go')
mapfile -t c_files < <(git ls-files -co --exclude-standard -- 'csrc/*.c' 'csrc/*.cc' 'csrc/*.h' 'csrc/*.inc')
mapfile -t shell_files < <(git ls-files -co --exclude-standard -- '*.sh' .ci/run)

if [[ ${1:-} == --fix ]]; then
  "$gofumpt" -w "${go_files[@]}"
  clang-format-19 -i "${c_files[@]}"
  exit
fi

check_gofumpt() {
  local unformatted
  unformatted=$("$gofumpt" -l "${go_files[@]}")
  [[ -z $unformatted ]] || die "not formatted with gofumpt:"$'\n'"$unformatted"
}

# Both builds, whatever TAGS says: of the one with the tag cuda the packages that have a file of their own for it.
check_golangci() {
  local packages
  mapfile -t packages < <(git grep -l --untracked '^//go:build cuda$' -- '*.go' | xargs -n 1 dirname | sort -u)
  local -x CGO_LDFLAGS
  CGO_LDFLAGS=$(cgo_ldflags "$ROOT/build")
  "$golangci" run ./... && "$golangci" run --build-tags cuda "${packages[@]/#/./}"
}

check_modules() {
  go mod tidy -diff || die "go.mod or go.sum is not what the imports need: go mod tidy"
  go mod verify
}

failed=()
check() {
  local name=$1
  (step "$@") || failed+=("$name")
}
if [[ ${1:-} != --analysis-only ]]; then
  check "gofumpt" check_gofumpt
  check "clang-format" clang-format-19 --dry-run -Werror "${c_files[@]}"
  check "shellcheck" shellcheck -x "${shell_files[@]}"
fi
if [[ ${1:-} != --format-only ]]; then
  check "go.mod" check_modules
  check "golangci-lint" check_golangci
  if [[ ${1:-} == --analysis-only ]]; then check "clang-tidy" scripts/tidy.sh --changed; else check "clang-tidy" scripts/tidy.sh; fi
fi
((${#failed[@]} == 0)) || die "lint: ${failed[*]} failed (make format rewrites formatting)"
