#!/usr/bin/env bash
# Records a question to the server at URL in chosen stages: curl_profile.sh [STAGES], such as 0,2. Traces go to the folder that
# the server was started with.
set -euo pipefail
url=${URL:-http://127.0.0.1:8000}
key=${OMNI_PROFILE_API_KEY:-${OMNI_API_KEY:-}}
post() {
  curl --silent --show-error --fail-with-body -X POST "$url/$1" ${key:+-H "Authorization: Bearer $key"} \
    -H "Content-Type: application/json" -d "$2"
  echo
}
post start_profile "{\"stages\": ${1:+[}${1:-null}${1:+]}}"
"$(dirname "$0")/curl_chat.sh" "Tell me a joke"
post stop_profile '{}'
