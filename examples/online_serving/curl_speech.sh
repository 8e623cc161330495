#!/usr/bin/env bash
# Has the server at URL read a text: curl_speech.sh [TEXT] [FILE]. The file's ending is the format: wav, mp3, flac, opus, aac.
set -euo pipefail
file=${2:-speech.wav}
body=$(TEXT=${1:-Good morning.} FORMAT=${file##*.} python3 -c 'import json, os
print(json.dumps({"input": os.environ["TEXT"], "response_format": os.environ["FORMAT"]}))')
curl --silent --show-error --fail-with-body "${URL:-http://127.0.0.1:8000}/v1/audio/speech" \
  ${OMNI_API_KEY:+-H "Authorization: Bearer $OMNI_API_KEY"} -H "Content-Type: application/json" -d "$body" --output "$file"
echo "$file"
