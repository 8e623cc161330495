#!/usr/bin/env bash
# What a build with TAGS=cuda needs besides scripts/deps.sh, which calls this: a few header files (400 KB). With
# CUDA_LIBS=1 also the CUDA libraries that libtorch_cuda.so needs to run (2.1 GB), at the versions that libtorch names.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# Of the same CUDA version as cudart and CUPTI in deps.sh.
crt_version=13.2.86
nvtx_version=13.2.86
include=$OMNI_CUDA_DIR/include

have_headers() {
  [[ -e $include/cupti.h && -e $include/cuda_runtime_api.h && -e $include/crt/host_defines.h && -e $include/nvtx3/nvToolsExt.h ]]
}

# pip replaces whole folders of its target, and nvidia/ is shared by many packages: so each set of packages is put into
# a folder of its own and copied from there.
mkdir -p "$ROOT/.deps"
fetch() {
  local what=$1 into
  shift
  echo "fetching $what into .deps (once)"
  into=$(mktemp -d "$ROOT/.deps/fetch.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$into'" EXIT
  python3 -m pip install --quiet --no-deps --target "$into" "$@" || die "could not fetch $what"
  cp -rn "$into/nvidia" "$ROOT/.deps/"
  rm -rf "$into"
}

if ! have_headers; then
  [[ $OMNI_CUDA_DIR == "$ROOT/.deps/nvidia/cu13" ]] ||
    die "OMNI_CUDA_DIR=$OMNI_CUDA_DIR has no CUDA headers: include/cupti.h, cuda_runtime_api.h, crt/host_defines.h and nvtx3/nvToolsExt.h are needed"
  fetch "the CUDA headers" "nvidia-cuda-crt==$crt_version" "nvidia-nvtx==$nvtx_version"
  have_headers || die "the CUDA packages did not hold their headers where they were expected ($include)"
fi

if [[ ${CUDA_LIBS:-0} == 1 && ! -e $ROOT/.deps/.cuda_libs ]]; then
  # As libtorch's own package lists them, conditions cut off.
  mapfile -t packages < <(sed -nE 's/^Requires-Dist: ((cuda-toolkit|nvidia-)[^;]*[^; ]) *(;.*)?$/\1/p' .deps/torch-*.dist-info/METADATA)
  ((${#packages[@]} > 0)) || die "libtorch's package in .deps does not say which CUDA libraries it needs"
  # cuda-toolkit is only a list of packages, so its dependencies are wanted.
  echo "fetching the CUDA libraries into .deps (2.1 GB, once)"
  into=$(mktemp -d "$ROOT/.deps/fetch.XXXXXX")
  trap 'rm -rf "$into"' EXIT
  python3 -m pip install --quiet --target "$into" "${packages[@]}" || die "could not fetch the CUDA libraries"
  cp -rn "$into/nvidia" "$ROOT/.deps/"
  touch "$ROOT/.deps/.cuda_libs"
fi
