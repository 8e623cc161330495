#!/usr/bin/env bash
# Serves a model with profiling switched on: MODEL (a folder or hub id), PORT, PROFILES.
set -euo pipefail
exec "${OMNI_RUN:-omni-run}" serve --model "${MODEL:-Qwen/Qwen2.5-Omni-7B}" --port "${PORT:-8000}" \
  --profiler-config "profiler=torch,torch_profiler_dir=${PROFILES:-./profiles}" "$@"
