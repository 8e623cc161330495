#!/usr/bin/env bash
# Serves a tiny random checkpoint and talks to it with the clients that people use: curl, the OpenAI SDK, a Prometheus parser.
# Then schemathesis sends a second server what it makes up of /openapi.json. Needs `make build`. The clients are installed into
# .deps, once.
#   OMNI_BIN_DIR  where omni-run and omni-worker are (bin)
#   EXAMPLES      requests that schemathesis makes up for each route (10)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

venv=$ROOT/.deps/clients-$(sha256sum scripts/clients/requirements.txt | cut -c1-12)
if [[ ! -e $venv/complete ]]; then
  echo "installing the clients into $venv" >&2
  python3 -m venv --clear "$venv" || die "missing: python3 with venv (on Debian: sudo apt-get install -y python3-venv)"
  "$venv/bin/python" -m pip install "${QUIET[@]}" -r scripts/clients/requirements.txt ||
    die "could not install the clients of scripts/clients/requirements.txt"
  touch "$venv/complete"
fi

bin=${OMNI_BIN_DIR:-$ROOT/bin}
work=$(mktemp -d)
server=
finish() {
  local status=$?
  [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
  ((status == 0)) || { echo "the server's log ends with" >&2; tail -n 20 "$work/log" >&2; }
  rm -rf "$work"
}
trap finish EXIT

"$bin/omni-run" make-checkpoint --preset tiny --seed 1 --out "$work/model" >/dev/null
export OMNI_API_KEY=key-of-this-test

# start_server [flags]: sets server and url. The address is the server's first line, when it is ready; its end ends the reading.
start_server() {
  mkfifo "$work/address"
  "$bin/omni-run" serve --model "$work/model" --served-model-name Qwen/Qwen2.5-Omni-7B --port 0 --max-audio-seconds 2 \
    --profiler-config "profiler=torch,torch_profiler_dir=$work/profiles" "$@" >"$work/address" 2>"$work/log" &
  server=$!
  read -r url <"$work/address" || die "the server did not start: $(tail -n 5 "$work/log")"
  rm "$work/address"
}

stop_server() {
  kill -TERM "$server"
  wait "$server" || die "the server ended with status $?: $(tail -n 5 "$work/log")"
  server=
}

# call METHOD PATH STATUS [curl arguments]: prints the answer, fails on another status.
call() {
  local status
  status=$(curl --silent --show-error --max-time 120 --output "$work/answer" --write-out '%{http_code}' -X "$1" "$url$2" \
    -H "Authorization: Bearer $OMNI_API_KEY" "${@:4}")
  [[ $status == "$3" ]] || die "$1 $2: got $status, want $3: $(head -c 500 "$work/answer")"
  cat "$work/answer"
}

with_curl() {
  [[ $(curl --silent --output /dev/null --write-out '%{http_code}' "$url/health") == 200 ]] || die "/health needs a key"
  [[ $(curl --silent --output /dev/null --write-out '%{http_code}' "$url/v1/models") == 401 ]] || die "/v1/models needs no key"
  call POST /start_profile 200 >/dev/null
  call POST /v1/chat/completions 200 -H "Content-Type: application/json" -d '{
    "model": "Qwen/Qwen2.5-Omni-7B",
    "messages": [{"role": "user", "content": "Hello, how are you?"}]
  }' | grep -q '"role":"assistant"' || die "no answer"
  call POST /stop_profile 200 >/dev/null
  for stage in 0 1 2; do
    compgen -G "$work/profiles/stage-${stage}_*.trace.json.gz" >/dev/null || die "stage $stage left no trace"
  done
  call POST /start_profile 200 -H "Content-Type: application/json" -d '{"stages": [0]}' >/dev/null
  call POST /v1/chat/completions 200 -H "Content-Type: application/json" -d '{
    "model": "Qwen/Qwen2.5-Omni-7B", "messages": [{"role": "user", "content": "Tell me a joke"}]
  }' >/dev/null
  call POST /stop_profile 200 -H "Content-Type: application/json" -d '{"stages": [0]}' >/dev/null
  compgen -G "$work/profiles/stage-0_s2.*.trace.json.gz" >/dev/null || die "stage 0 left no trace"
  ! compgen -G "$work/profiles/stage-[12]_s2.*.trace.json.gz" >/dev/null || die "stages that were not asked for left traces"
  call POST /start_profile 400 -H "Content-Type: application/json" -d '{"stages": [7]}' >/dev/null
  call POST /v1/audio/speech 200 -d '{"input": "Hello", "max_tokens": 8}' | head -c 4 | grep -q RIFF || die "no WAV"
}

# Every answer must be one that the document has for its operation, in its status, headers and form, and none a fault of the server.
# What starts and stops sessions comes last: until they are stopped, GET /profile could not record.
with_schemathesis() {
  local only
  cd "$work" || return # it leaves notes where it runs
  call GET '/profile?seconds=0.02' 200 >/dev/null # the session s1, which is the document's example
  for only in --exclude-path-regex --include-path-regex; do
    "$venv/bin/python" -m schemathesis.cli run "$url/openapi.json" -H "Authorization: Bearer $OMNI_API_KEY" --max-examples "${EXAMPLES:-10}" \
      "$only" '^/(start|stop|dump)_profile$' --phases examples,coverage,fuzzing --checks "$checks" \
      --request-timeout 60 --generation-deterministic --workers 1 --no-color || return
  done
}
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance
checks+=,negative_data_rejection,unsupported_method,allow_header_conformance,ignored_auth

start_server
step "curl" with_curl
step "OpenAI SDK, Prometheus parser" "$venv/bin/python" scripts/clients/check.py "$url" "$OMNI_API_KEY" Qwen/Qwen2.5-Omni-7B
stop_server
# Fast, so that there may be many requests: short texts, tiny sessions, and an encoder that does nothing.
mkdir "$work/bin"
printf '#!/bin/sh\nexec cat\n' >"$work/bin/ffmpeg"
chmod +x "$work/bin/ffmpeg"
printf 'stages: [{stage_id: 0, default_sampling_params: {max_tokens: 8}}, {stage_id: 1}, {stage_id: 2}]\n' >"$work/short.yaml"
PATH="$work/bin:$PATH" start_server --stage-configs-path "$work/short.yaml" --max-profile-seconds 0.02 --max-profile-events 20000
step "schemathesis" with_schemathesis
cd "$ROOT"
stop_server
steps_report
