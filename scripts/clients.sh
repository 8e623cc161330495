#!/usr/bin/env bash
# Serves a tiny random checkpoint and talks to it with the clients that people use: curl, the OpenAI SDK, a Prometheus parser,
# and schemathesis, which makes requests of /openapi.json. Needs `make build`. The clients are installed into .deps, once.
#   OMNI_BIN_DIR  where omni-run and omni-worker are (bin)
#   EXAMPLES      requests that schemathesis makes up for each route (10)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

venv=$ROOT/.deps/clients-$(sha256sum scripts/clients/requirements.txt | cut -c1-12)
if [[ ! -e $venv/complete ]]; then
  echo "installing the clients into $venv" >&2
  python3 -m venv --clear "$venv" || die "missing: python3 with venv (on Debian: sudo apt-get install -y python3-venv)"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r scripts/clients/requirements.txt ||
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
"$bin/omni-run" serve --model "$work/model" --served-model-name Qwen/Qwen2.5-Omni-7B --port 0 --max-audio-seconds 2 \
  --profiler-config "profiler=torch,torch_profiler_dir=$work/profiles" >"$work/address" 2>"$work/log" &
server=$!
for ((i = 0; i < 600; i++)); do
  [[ ! -s $work/address ]] || break
  kill -0 "$server" 2>/dev/null || die "the server did not start: $(tail -n 5 "$work/log")"
  sleep 0.1
done
url=$(cat "$work/address")

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
  rm -r "$work/profiles"
  mkdir "$work/profiles"
  call POST /start_profile 200 -H "Content-Type: application/json" -d '{"stages": [0]}' >/dev/null
  call POST /v1/chat/completions 200 -H "Content-Type: application/json" -d '{
    "model": "Qwen/Qwen2.5-Omni-7B", "messages": [{"role": "user", "content": "Tell me a joke"}]
  }' >/dev/null
  call POST /stop_profile 200 -H "Content-Type: application/json" -d '{"stages": [0]}' >/dev/null
  compgen -G "$work/profiles/stage-0_*.trace.json.gz" >/dev/null || die "stage 0 left no trace"
  ! compgen -G "$work/profiles/stage-[12]*.trace.json.gz" >/dev/null || die "stages that were not asked for left traces"
  call POST /start_profile 400 -H "Content-Type: application/json" -d '{"stages": [7]}' >/dev/null
  call POST /v1/audio/speech 200 -d '{"input": "Hello", "max_tokens": 8}' | head -c 4 | grep -q RIFF || die "no WAV"
}

# Every answer must be what the document says, and none a fault of the server. The routes that start profiling are left out: a
# session would record all that follows.
with_schemathesis() {
  cd "$work" || return # it leaves notes where it runs
  "$venv/bin/python" -m schemathesis.cli run "$url/openapi.json" -H "Authorization: Bearer $OMNI_API_KEY" --max-examples "${EXAMPLES:-10}" \
    --exclude-path /profile --exclude-path-regex '^/(start|stop|dump)_profile$' \
    --phases coverage,fuzzing --checks not_a_server_error,response_schema_conformance,content_type_conformance \
    --request-timeout 60 --generation-deterministic --workers 1 --no-color
}

step "curl" with_curl
step "OpenAI SDK, Prometheus parser" "$venv/bin/python" scripts/clients/check.py "$url" "$OMNI_API_KEY" Qwen/Qwen2.5-Omni-7B
step "schemathesis" with_schemathesis
cd "$ROOT"
kill -TERM "$server"
wait "$server" || die "the server ended with status $?: $(tail -n 5 "$work/log")"
server=
steps_report
