"""Measures omni-run on a checkpoint and prints it beside the reference: see bench.sh.

Everything is read from `omni-run --format json`: what is measured is what a user gets. Decode speed is the time that
tokens add to a request (a run of N tokens less a run of one), so that neither loading nor the prompt counts. Both sides
are held to the same lengths (min_tokens), and the two take turns, so that a machine that gets busy slows both.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

# name, unit, whether more is better
ROWS = [
    ("load", "s", False),
    ("prefill", "ms", False),
    ("decode, batch 1", "tokens/s", True),
    ("decode, batch 4", "tokens/s", True),
    ("decode, batch 16", "tokens/s", True),
    ("talker", "codes/s", True),
    ("vocoder RTF", "", False),
    ("first audio", "s", False),
    ("first audio, streamed", "s", False),
]
PROMPT = "Tell me slowly and in detail how a river finds its way from the mountains to the sea, and who lives by it. "


def generate(options, prompts, *flags):
    """Runs omni-run on a list of prompts, all at once. Returns its requests and the seconds that loading took."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "prompts.txt")
        source.write_text("\n".join(prompts) + "\n", encoding="utf-8")
        stages = pathlib.Path(folder, "stages.yaml")
        cores = os.cpu_count()
        stages.write_text(
            "stage_args:\n"
            + "".join(f"  - stage_id: {i}\n    engine_args: {{threads: {cores}, max_batch_size: 16}}\n" for i in range(3)),
            encoding="utf-8",
        )
        run = subprocess.run(
            [options.omni_run, "--model", options.checkpoint, "--prompts-file", source, "--max-concurrency", "16",
             "--format", "json", "--output-dir", pathlib.Path(folder, "out"), "--dtype", options.dtype,
             "--stage-configs-path", stages, *flags],
            capture_output=True, text=True, check=False,
        )
    if run.returncode != 0:
        sys.exit(f"omni-run failed:\n{run.stderr}\n{run.stdout[:2000]}")
    loaded = re.search(r"loaded .* in ([\d.]+) s", run.stderr)
    return json.loads(run.stdout)["requests"], float(loaded.group(1))


def decode_rate(options, prompt, batch):
    """Tokens per second that a batch of equal prompts gains after its first token."""
    def run(tokens):
        sampling = json.dumps([{"temperature": 0, "max_tokens": tokens, "min_tokens": tokens}])
        return generate(options, [prompt] * batch, "--modalities", "text", "--sampling-params", sampling)[0]

    first, all_ = run(1), run(options.tokens + 1)
    seconds = (max(r["e2e_ms"] for r in all_) - max(r["e2e_ms"] for r in first)) / 1000
    return sum(len(r["token_ids"]) - 1 for r in all_) / seconds


def measure_omni(options):
    prompt = (PROMPT * (options.prompt_words // len(PROMPT.split()) + 1)).strip()
    prompt = " ".join(prompt.split()[: options.prompt_words])
    probe, load = generate(options, [prompt], "--modalities", "text", "--max-tokens", "1")
    result = {"load": load, "prefill": min(
        stage["compute_ms"] for _ in range(3)
        for stage in generate(options, [prompt], "--modalities", "text", "--max-tokens", "1")[0][0]["stages"]
    )}
    for batch in (1, 4, 16):
        result[f"decode, batch {batch}"] = decode_rate(options, prompt, batch)
    limits = json.dumps([
        {"temperature": 0, "max_tokens": options.tokens, "min_tokens": options.tokens},
        {"max_tokens": options.codes, "min_tokens": options.codes}, {},
    ])
    spoken = generate(options, [prompt], "--seed", "1", "--sampling-params", limits)[0][0]
    talker, vocoder = spoken["stages"][1], spoken["stages"][2]
    result["talker"] = talker["tokens"] / talker["compute_ms"] * 1000
    result["vocoder RTF"] = vocoder["compute_ms"] / 1000 / (spoken["audio"]["samples"] / spoken["audio"]["sample_rate"])
    result["first audio"] = spoken["first_audio_ms"] / 1000
    streamed = generate(options, [prompt], "--seed", "1", "--speech-mode", "stream", "--sampling-params", limits)[0][0]
    result["first audio, streamed"] = streamed["first_audio_ms"] / 1000
    result["made"] = {"codes": talker["tokens"], "samples": spoken["audio"]["samples"]}
    return result, probe[0]["prompt_token_ids"]


def best(rounds):
    """The best value of each row: what disturbs a run only makes it slower."""
    return {name: (max if more else min)(r[name] for r in rounds) for name, _, more in ROWS}


def measure_reference(options, prompt_ids):
    script = pathlib.Path(__file__).with_name("bench_reference.py")
    run = subprocess.run(
        [options.reference, script, "--checkpoint", options.checkpoint, "--dtype", options.dtype, "--tokens", str(options.tokens),
         "--codes", str(options.codes)],
        input=json.dumps(prompt_ids), capture_output=True, text=True, check=False,
        env={**os.environ, "TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"},
    )
    if run.returncode != 0:
        sys.exit(f"the reference failed:\n{run.stderr[-4000:]}")
    result = json.loads(run.stdout.splitlines()[-1])
    result["first audio, streamed"] = result["first audio"]  # it cannot stream
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--omni-run", default="bin/omni-run")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--reference", default="none", help="a Python with transformers, or none")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tokens", type=int, default=32, help="tokens to decode")
    parser.add_argument("--codes", type=int, default=150, help="speech codes to make at most: 50 are a second")
    parser.add_argument("--prompt-words", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=2, help="how often the two sides take turns; each row is the best")
    options = parser.parse_args()

    print(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), f"{os.cpu_count()} cores, dtype {options.dtype},",
          "load", " ".join(f"{x:.1f}" for x in os.getloadavg()))
    ours, theirs = [], []
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        result, prompt_ids = measure_omni(options)
        ours.append(result)
        if options.reference == "none":
            continue
        theirs.append(measure_reference(options, prompt_ids))
        if theirs[-1]["made"] != result["made"]:
            sys.exit(f"the two sides made speech of different length: omni {result['made']}, reference {theirs[-1]['made']}")
    made = ours[0]["made"]
    ours, theirs = best(ours), best(theirs) if theirs else {}
    print(f"prompt of {len(prompt_ids)} tokens, {options.tokens} tokens decoded, {made['codes']} codes, "
          f"{made['samples'] / 24000:.2f} s of speech\n")
    print(f"{'':22} {'omni':>10} {'reference':>10} {'ratio':>7}")
    for name, unit, more in ROWS:
        line = f"{name:22} {ours[name]:10.2f}"
        if name in theirs:
            ratio = ours[name] / theirs[name] if more else theirs[name] / ours[name]
            line += f" {theirs[name]:10.2f} {ratio:6.2f}x"
        print(f"{line}  {unit}")
    print("\nA ratio above 1 means that omni is faster.")


main()
