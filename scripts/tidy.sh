#!/usr/bin/env bash
# clang-tidy over the C++ library, whose commands it takes from the build. `tidy.sh` checks every file. `tidy.sh --changed`
# checks those that differ from a base, and those that include a header that does. The base is OMNI_BASE, else where this
# branch left the main branch of origin, else, with nothing ahead of that (a fresh clone), the commit before.
# A file takes ten seconds, so one that has passed on this machine with the same contents, headers and rules is not
# checked again: build/tidy remembers. What is left out is counted.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

if [[ ${1:-} == --file ]]; then # FILE STAMP: one file; the stamp is left when it passes
  clang-tidy-19 --quiet -p build/tidy "$2" 2> >(grep -vE 'warnings? generated|warnings? treated|^Suppressed|^Use -header' >&2)
  touch "$3"
  echo "  $2"
  exit
fi

base_revision() {
  local base=${OMNI_BASE:-}
  if [[ -n $base ]]; then
    git rev-parse --verify --quiet "$base^{commit}" || die "OMNI_BASE=$base is no commit of this repository"
    return
  fi
  base=$(git merge-base HEAD origin/HEAD 2>/dev/null) || base=HEAD
  [[ $(git rev-parse "$base") != $(git rev-parse HEAD) ]] || base=HEAD~1
  git rev-parse --verify --quiet "$base^{commit}" || git hash-object -t tree /dev/null # the first commit: everything
}

# The files of csrc that differ from $1, and for each header among them the files that include it.
changed_since() {
  local path
  { git diff --name-only --diff-filter=d "$1" -- csrc .clang-tidy; git ls-files -o --exclude-standard -- csrc; } | sort -u |
    while read -r path; do
      case $path in
        .clang-tidy) printf '%s\n' "${sources[@]}" ;;
        csrc/tests/*) ;; # are not checked, see below
        *.cc) echo "$path" ;;
        *.h | *.inc) grep -lF "\"${path#csrc/}\"" "${sources[@]}" || true ;;
      esac
    done | sort -u
}

# One entry per file, since some are compiled for two libraries; and no OpenMP, of which clang lacks the header.
scripts/build.sh commands
mkdir -p build/tidy
mapfile -t built < <(python3 - build/commands/compile_commands.json build/tidy/compile_commands.json <<'PYTHON'
import json, os, sys
with open(sys.argv[1]) as source, open(sys.argv[2], "w") as target:
    entries = {entry["file"]: entry for entry in json.load(source)}
    for entry in entries.values():
        entry["command"] = entry["command"].replace(" -fopenmp ", " ")
    json.dump(list(entries.values()), target)
print(*sorted(os.path.relpath(file) for file in entries), sep="\n")
PYTHON
)
# Tests are left to the compiler's warnings: most of what clang-tidy says of them is about GoogleTest's macros.
mapfile -t sources < <(git ls-files -co --exclude-standard -- 'csrc/*.cc' | grep -v '^csrc/tests/')
mapfile -t wanted < <(printf '%s\n' "${sources[@]}")
which="all ${#sources[@]} files"
if [[ ${1:-} == --changed ]]; then
  base=$(base_revision)
  mapfile -t wanted < <(changed_since "$base")
  which="${#wanted[@]} of ${#sources[@]} files, those that differ from $(git log -1 --format='%h (%s)' "$base" 2>/dev/null || echo nothing)"
fi

common=$(git ls-files -co --exclude-standard -- .clang-tidy 'csrc/*.h' 'csrc/*.inc' | xargs cat | sha256sum)
todo=() passed=0 absent=()
for file in "${wanted[@]}"; do
  [[ -n $file ]] || continue
  if ! printf '%s\n' "${built[@]}" | grep -qxF "$file"; then
    absent+=("$file")
    continue
  fi
  stamp=build/tidy/$( (echo "$common"; cat "$file") | sha256sum | cut -c1-32)
  if [[ -e $stamp ]]; then passed=$((passed + 1)); else todo+=("$file" "$stamp"); fi
done
echo "clang-tidy: $which; $passed have passed before, ${#absent[@]} are not in this build ${absent[*]}"
((${#todo[@]} == 0)) || printf '%s\0' "${todo[@]}" | xargs -0 -P "$JOBS" -n 2 scripts/tidy.sh --file
