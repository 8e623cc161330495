#!/usr/bin/env bash
# Checks the tools, installs missing headers where it may, and fetches libtorch into .deps. Quick when nothing
# is missing. `scripts/deps.sh lint` checks what `make lint` and the tests need as well.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

torch_version=2.15.0
cupti_version=13.2.86
cudart_version=13.2.86

missing=() # Debian packages
need_command() { command -v "$1" >/dev/null || missing+=("$2"); }
need_header() {
  printf '#include <%s>\n' "$1" | g++ -std=c++20 -fsyntax-only -x c++ - 2>/dev/null || missing+=("$2")
}

need_command g++ g++
need_command cmake cmake
need_command ninja ninja-build
if command -v g++ >/dev/null; then
  need_header nlohmann/json.hpp nlohmann-json3-dev
  need_header isa-l/igzip_lib.h libisal-dev
  need_header zlib.h zlib1g-dev
  need_header gtest/gtest.h libgtest-dev
fi
wanted=() # likewise, without which the build is complete and some requests cannot be answered
command -v ffmpeg >/dev/null || wanted+=(ffmpeg) # speech as flac, mp3, opus and aac, and at other speeds than 1
if [[ ${1:-} == lint ]]; then
  missing+=("${wanted[@]}") # tests need them
  wanted=()
  need_command clang-format-19 clang-format-19
  need_command clang-tidy-19 clang-tidy-19
  need_command shellcheck shellcheck
  need_command chromium chromium # for the tests of the page
  need_command npm npm           # for Perfetto's engine, which checks traces
  need_command curl curl         # a client in the tests of the server
fi

if ((${#missing[@]} + ${#wanted[@]} > 0)); then
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    missing+=("${wanted[@]}")
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
      { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
  elif ((${#missing[@]} > 0)); then
    die "missing: run  sudo apt-get install -y ${missing[*]} ${wanted[*]}  and try again"
  else
    echo "without ${wanted[*]} a server cannot make speech in every format: sudo apt-get install -y ${wanted[*]}" >&2
  fi
fi

command -v go >/dev/null || die "missing: Go $(sed -nE 's/^go //p' go.mod) or newer, on the PATH"
gcc_major=$(g++ -dumpversion | cut -d. -f1)
((gcc_major >= 12)) || die "g++ $(g++ -dumpversion) is too old: C++20 needs 12 or newer"

have_torch() {
  [[ -e $OMNI_TORCH_DIR/lib/libtorch_cpu.so && -e $OMNI_TORCH_DIR/include/ATen/ATen.h ]]
}

if [[ $OMNI_TORCH_DIR != "$ROOT/.deps/torch" ]]; then
  have_torch || die "OMNI_TORCH_DIR=$OMNI_TORCH_DIR is no libtorch: lib/libtorch_cpu.so or include/ATen/ATen.h is missing"
elif ! have_torch || [[ ! -e $OMNI_CUDA_DIR/lib/libcupti.so.13 || ! -e $OMNI_CUDA_DIR/lib/libcudart.so.13 ]] ||
  ! grep -q "'${torch_version}[+']" .deps/torch/version.py; then
  python3 -m pip --version >/dev/null 2>&1 ||
    die "missing: python3 with pip, to fetch libtorch (on Debian: sudo apt-get install -y python3-pip); or set OMNI_TORCH_DIR"
  echo "fetching libtorch $torch_version into .deps (540 MB, once)"
  python3 -m pip install "${QUIET[@]}" --no-deps --upgrade --target .deps "torch==$torch_version" \
    "nvidia-cuda-cupti==$cupti_version" "nvidia-cuda-runtime==$cudart_version" ||
    die "could not fetch libtorch; set OMNI_TORCH_DIR to a libtorch >= 2.11 that you have"
  have_torch || die "the torch package did not hold lib/libtorch_cpu.so where it was expected (.deps/torch)"
fi

# Tests decode GPU records on every machine, so they need the headers too.
if [[ " ${TAGS//,/ } " == *" cuda "* || ${1:-} == lint ]]; then scripts/deps_cuda.sh; fi
