#!/usr/bin/env bash
# What a build with TAGS=cuda needs besides scripts/deps.sh, which calls this: a few header files (400 KB), and with
# CUDA_LIBS=1 the CUDA libraries that libtorch_cuda.so needs to run (2.1 GB to fetch, 3 GB on disk), at the versions that
# libtorch names.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# Of the same CUDA version as cudart and CUPTI in deps.sh.
crt_version=13.2.86
nvtx_version=13.2.86
include=$OMNI_CUDA_DIR/include
deps=$ROOT/.deps

have_headers() {
  [[ -e $include/cupti.h && -e $include/cuda_runtime_api.h && -e $include/crt/host_defines.h && -e $include/nvtx3/nvToolsExt.h ]]
}

# fetch FOLDER WHAT PIP_ARGUMENT...: packages into a folder of their own in .deps, unless they are there, and links from
# where libtorch and compilers look for them. The folder gets its name when it is whole, and each link is made at once: what
# is interrupted begins anew.
fetch() {
  local folder=$deps/$1 what=$2
  shift 2
  exec 9>"$deps/.fetching" && flock 9 # other trees may share .deps
  if [[ ! -e $folder/packages || $(<"$folder/packages") != "$*" ]]; then
    echo "fetching $what into .deps (once)"
    rm -rf "$folder" "$folder.tmp"
    python3 -m pip install "${QUIET[@]}" --no-cache-dir --target "$folder.tmp" "$@" ||
      { rm -rf "$folder.tmp" && die "could not fetch $what"; }
    printf '%s\n' "$*" >"$folder.tmp/packages"
    mv "$folder.tmp" "$folder"
  fi
  mkdir -p "$deps/nvidia"
  cp -rlf "$folder/nvidia/." "$deps/nvidia/"
  exec 9>&-
}

if ! have_headers; then
  [[ $OMNI_CUDA_DIR == "$deps/nvidia/cu13" ]] ||
    die "OMNI_CUDA_DIR=$OMNI_CUDA_DIR has no CUDA headers: include/cupti.h, cuda_runtime_api.h, crt/host_defines.h and nvtx3/nvToolsExt.h are needed"
  fetch cuda_headers "the CUDA headers" --no-deps "nvidia-cuda-crt==$crt_version" "nvidia-nvtx==$nvtx_version"
  have_headers || die "the CUDA packages did not hold their headers where they were expected ($include)"
fi

if [[ ${CUDA_LIBS:-0} == 1 ]]; then
  [[ $OMNI_TORCH_DIR == "$deps/torch" ]] ||
    die "CUDA_LIBS=1 fetches the libraries of the libtorch in .deps, and OMNI_TORCH_DIR=$OMNI_TORCH_DIR is another one: install those that it needs"
  # As libtorch's own package lists them, conditions cut off.
  version=$(sed -nE "s/^__version__ = '([^'+]*).*/\1/p" "$deps/torch/version.py")
  mapfile -t packages < <(sed -nE 's/^Requires-Dist: ((cuda-toolkit|nvidia-)[^;]*[^; ]) *(;.*)?$/\1/p' "$deps/torch-$version.dist-info/METADATA")
  ((${#packages[@]} > 0)) || die "libtorch's package in .deps does not say which CUDA libraries it needs"
  # With their dependencies: cuda-toolkit is only a list of packages.
  fetch cuda_libs "the CUDA libraries (2.1 GB)" "${packages[@]}"
fi
