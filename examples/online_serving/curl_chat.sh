#!/usr/bin/env bash
# Asks the server at URL one question and prints the answer's text: curl_chat.sh [PROMPT]
set -euo pipefail
body=$(PROMPT=${1:-Why is the sky blue?} python3 -c 'import json, os
print(json.dumps({"messages": [{"role": "user", "content": os.environ["PROMPT"]}], "modalities": ["text"], "max_tokens": 64}))')
curl --silent --show-error --fail-with-body "${URL:-http://127.0.0.1:8000}/v1/chat/completions" \
  ${OMNI_API_KEY:+-H "Authorization: Bearer $OMNI_API_KEY"} -H "Content-Type: application/json" -d "$body" |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"])'
