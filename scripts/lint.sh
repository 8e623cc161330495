#!/usr/bin/env bash
# Style and static checks of everything: Go, C and C++, shell. All checks run, also after one has failed.
# lint.sh [--format-only | --analysis-only | --fix]; --fix rewrites formatting instead of checking.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
scripts/deps.sh lint

gofumpt=$(tool gofumpt mvdan.cc/gofumpt v0.12.0)
golangci=$(tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint v2.15.0)
mapfile -t go_files < <(git ls-files -co --exclude-standard -- '*.go')
mapfile -t c_files < <(git ls-files -co --exclude-standard -- 'csrc/*.c' 'csrc/*.cc' 'csrc/*.h')
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

check_golangci() {
  CGO_LDFLAGS=$(cgo_ldflags "$ROOT/build") "$golangci" run --build-tags "$TAGS" ./...
}

check_modules() {
  go mod tidy -diff || die "go.mod or go.sum is not what the imports need: go mod tidy"
  go mod verify
}

# clang-tidy takes ten seconds a file, so a file is checked when it, a header or the rules have changed since it last
# passed on this machine. What passed is remembered in build/tidy.
check_tidy() {
  mkdir -p build/tidy
  # One entry per file, since some are compiled for two libraries; and no OpenMP, of which clang lacks the header.
  python3 - build/compile_commands.json build/tidy/compile_commands.json <<'PYTHON'
import json, sys
with open(sys.argv[1]) as source, open(sys.argv[2], "w") as target:
    entries = {entry["file"]: entry for entry in json.load(source)}
    for entry in entries.values():
        entry["command"] = entry["command"].replace(" -fopenmp ", " ")
    json.dump(list(entries.values()), target)
PYTHON
  local common todo=() file stamp
  common=$(printf '%s\n' .clang-tidy "${c_files[@]}" | grep -v '\.cc$' | xargs cat | sha256sum)
  for file in "${c_files[@]}"; do
    [[ $file == *.cc && $file != csrc/tests/* ]] || continue
    stamp=build/tidy/$( (echo "$common"; cat "$file") | sha256sum | cut -c1-32)
    [[ -e $stamp ]] || todo+=("$file" "$stamp")
  done
  echo "$((${#todo[@]} / 2)) changed files"
  ((${#todo[@]} == 0)) || printf '%s\0' "${todo[@]}" | xargs -0 -P "$JOBS" -n 2 scripts/tidy.sh
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
  [[ ${1:-} == --analysis-only ]] || check "clang-tidy" check_tidy
fi
((${#failed[@]} == 0)) || die "lint: ${failed[*]} failed (make format rewrites formatting)"
