#!/usr/bin/env bash
# Runs clang-tidy on one file and leaves a stamp when it passes: tidy.sh FILE STAMP.
set -euo pipefail
clang-tidy-19 --quiet -p build/tidy "$1" 2> >(grep -vE 'warnings? generated|warnings? treated|^Suppressed|^Use -header' >&2)
touch "$2"
