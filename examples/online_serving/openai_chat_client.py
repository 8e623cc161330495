"""Asks a server a question with the OpenAI SDK: the text is printed as it comes, the speech is written to a file.

    pip install openai
    python openai_chat_client.py --prompt "Why is the sky blue?" --output answer.wav
"""

import argparse
import base64
import os

from openai import OpenAI

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
parser.add_argument("--model", "-m", help="default: the first that the server names")
parser.add_argument("--prompt", "-p", default="Why is the sky blue? Answer in one sentence.")
parser.add_argument("--modalities", default="text,audio")
parser.add_argument("--voice", help="default: the model's own")
parser.add_argument("--max-tokens", type=int)
parser.add_argument("--seed", type=int)
parser.add_argument("--output", "-o", default="answer.wav")
args = parser.parse_args()

client = OpenAI(base_url=args.base_url, api_key=os.environ.get("OMNI_API_KEY", "EMPTY"))
audio = {"format": "wav"}
if args.voice:
    audio["voice"] = args.voice
stream = client.chat.completions.create(
    model=args.model or client.models.list().data[0].id,
    messages=[{"role": "user", "content": args.prompt}],
    modalities=args.modalities.split(","),
    audio=audio,
    max_tokens=args.max_tokens,
    seed=args.seed,
    stream=True,
    # Sampling of each stage: the text is greedy, the speech is as the model has it.
    extra_body={"sampling_params_list": [{"temperature": 0.0}, {}, {}]},
)
speech = b""
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
        if choice.delta.audio and choice.delta.audio.data:
            speech += base64.b64decode(choice.delta.audio.data)
print()
if speech:
    with open(args.output, "wb") as file:
        file.write(speech)
    print("speech:", args.output)
