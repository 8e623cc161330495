#!/usr/bin/env bash
# Builds the C++ library with CMake and Ninja into build/, then the commands into bin/. `build.sh all` builds the C++ tests and
# benchmarks as well, `build.sh sanitize` nothing but the library under sanitizers, into build/sanitize. `build.sh commands`
# compiles nothing: it writes how each source alone is compiled into build/commands/compile_commands.json.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# configure_cmake DIR OPTION...: runs CMake only when the options differ from last time; Ninja itself notices
# changed CMake files.
configure_cmake() {
  local dir=$1 launcher=()
  shift
  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache)
  local args=(-G Ninja -DOMNI_TORCH_DIR="$OMNI_TORCH_DIR" -DOMNI_CUDA_DIR="$OMNI_CUDA_DIR" "${launcher[@]}" "$@")
  # CMake is to look again when the CUDA headers have come or gone.
  if [[ -e $OMNI_CUDA_DIR/include/crt/host_defines.h ]]; then args+=(-DOMNI_CUDA_HEADERS_SEEN=ON); fi
  if [[ ! -e $dir/build.ninja || $(cat "$dir/.configured" 2>/dev/null) != "${args[*]}" ]]; then
    cmake -S . -B "$dir" "${args[@]}" >"$ROOT/build/configure.log" 2>&1 ||
      { cat "$ROOT/build/configure.log" >&2; die "CMake could not configure $dir"; }
    printf '%s\n' "${args[*]}" >"$dir/.configured"
  fi
}

mkdir -p build
options=(-DOMNI_SANITIZE=OFF)
if [[ " ${TAGS//,/ } " == *" cuda "* ]]; then options+=(-DOMNI_CUDA=ON); else options+=(-DOMNI_CUDA=OFF); fi

if [[ ${1:-} == commands ]]; then
  configure_cmake build/commands "${options[@]}" -DOMNI_UNITY=OFF
  ninja -C build/commands --quiet build.ninja # again, if there are other sources than last time
  exit
fi
if [[ ${1:-} == sanitize ]]; then
  configure_cmake build/sanitize -DOMNI_SANITIZE=ON -DOMNI_TESTS=OFF
  compile build/sanitize omni omni_fake
  exit
fi

configure_cmake build "${options[@]}"
if [[ ${1:-} == all ]]; then compile build; else compile build libraries; fi
# The worker finds the libraries beside itself, wherever the tree is moved to.
CGO_LDFLAGS="$(cgo_ldflags "$ROOT/build") -Wl,-rpath,\$ORIGIN/../build/lib -Wl,-rpath,\$ORIGIN/../.deps/torch/lib" \
  go build -tags "$TAGS" -o bin/ ./cmd/...
