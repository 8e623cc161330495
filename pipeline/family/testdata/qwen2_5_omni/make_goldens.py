#!/usr/bin/env python3
"""Stores what transformers computes with our random checkpoints, stage by stage: the goldens of family qwen2_5_omni.

    python3 -m venv ref && ref/bin/pip install torch==2.15.0 transformers==5.23.0
    ref/bin/python pipeline/family/testdata/qwen2_5_omni/make_goldens.py [--only CASE ...]

Run it from the repository's root after `make build`. The checkpoints are written by `omni-run make-checkpoint`; they
are deterministic, so only their fingerprint is stored. Per case there is <preset>/<case>.json and
<preset>/<case>.safetensors, in the form that pipeline/family/familytest reads for every family. The first holds what must
be equal: the prompt and, by the stages' names, token ids and hashes of the random generator's state after the stage; and
how close the tensors must be that a stage hands out. The second holds those as <stage>.<tensor>: the thinker's rows and
the waveform. All in float32 on one CPU thread.

With --checkpoint DIR --out DIR it does the same for any other checkpoint, and torch/golden compares with that:

    ref/bin/python .../make_goldens.py --checkpoint ~/Qwen2.5-Omni-3B --out /tmp/goldens
    OMNI_GOLDENS=/tmp/goldens go test ./torch/golden -run Own -v
"""
import argparse
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import safetensors.torch
import torch
import transformers
from transformers import AutoTokenizer, Qwen2_5OmniForConditionalGeneration

from cases import CASES

HERE = pathlib.Path(__file__).resolve().parent
FAMILY = "qwen2_5_omni"
PRESETS = ["tiny-a", "tiny-b", "tiny-c"]
CHECKPOINT_SEED = 20
SEARCH_LIMIT = 400

# How far a float32 computation may be from the reference's: hidden rows, whose elements are around 1, and samples, which
# lie in [-1, 1].
TOLERANCES = {"thinker": {"prompt_rows": 1e-4, "reply_rows": 1e-4}, "code2wav": {"audio": 2e-3}}


def checkpoint_sum(folder):
    """The fingerprint of pipeline/checkpoint/random.Sum."""
    lines = []
    for path in sorted(folder.iterdir(), key=lambda p: p.name.encode()):
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def chat_template(folder):
    """The template, from whichever of the three places the checkpoint has it in."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).exists():
            template = json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template")
            if template:
                return template
    raise SystemExit(f"{folder}: no chat template")


def generate_arguments(prefix, sampling):
    """Translates our sampling parameters into arguments of generate with the stage's prefix."""
    arguments = {
        "max_new_tokens": sampling["max_tokens"],
        "min_new_tokens": sampling.get("min_tokens"),
        "repetition_penalty": sampling.get("repetition_penalty", 1.0),
        "do_sample": sampling["temperature"] > 0,
    }
    if sampling["temperature"] > 0:
        arguments["temperature"] = sampling["temperature"]
        arguments["top_p"] = sampling.get("top_p", 1.0)
        arguments["top_k"] = max(sampling.get("top_k", -1), 0)
    elif prefix == "talker":
        arguments.update(temperature=None, top_p=None, top_k=None)
    return {f"{prefix}_{name}": value for name, value in arguments.items()}


def state_sum():
    return hashlib.sha256(bytes(torch.get_rng_state().numpy())).hexdigest()


class Recorder:
    """Runs requests and keeps what passes from one stage to the next."""

    def __init__(self, folder):
        self.folder = folder
        self.model = Qwen2_5OmniForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.template = chat_template(folder)
        self.speakers = list(self.model.speaker_map)
        talker = self.model.config.talker_config
        self.codec_ends = [talker.tts_codec_pad_token_id, talker.tts_codec_end_token_id]
        ends = self.model.thinker.generation_config.eos_token_id
        self.text_ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self.seen = {}
        self._watch(self.model.thinker, "generate", self._after_thinker)
        self._watch(self.model.talker, "generate", self._after_talker)

    def _watch(self, module, method, after):
        original = getattr(module, method)

        def watched(*args, **kwargs):
            result = original(*args, **kwargs)
            after(result, kwargs)
            return result

        setattr(module, method, watched)

    def _after_thinker(self, result, kwargs):
        self.seen["token_ids"] = result.sequences[0, kwargs["input_ids"].shape[1] :].tolist()
        rows = [(step[0] + step[-1])[0] for step in result.hidden_states]
        self.seen["prompt_rows"] = rows[0]
        self.seen["reply_rows"] = torch.cat(rows[1:]) if len(rows) > 1 else rows[0][:0]
        self.seen["rng_after_thinker"] = state_sum()

    def _after_talker(self, result, kwargs):
        generated = result[0, kwargs["input_ids"].shape[1] :].tolist()
        ends = [i for i, code in enumerate(generated) if code in self.codec_ends]
        self.seen["codes"] = generated[: ends[0]] if ends else generated
        self.seen["codes_finish"] = "stop" if ends else "length"
        self.seen["rng_after_talker"] = state_sum()

    def run(self, case, seed, text_ends):
        """Answers one request. What the reference does not reach is missing from the result."""
        self.seen.clear()
        rendered = self.tokenizer.apply_chat_template(
            case["messages"], chat_template=self.template, add_generation_prompt=True, tokenize=False
        )
        prompt_ids = self.tokenizer(rendered).input_ids
        arguments = {
            **generate_arguments("thinker", case["thinker"]),
            **generate_arguments("talker", case["talker"]),
            **{f"token2wav_{name}": value for name, value in case.get("token2wav", {}).items()},
            "thinker_eos_token_id": text_ends or None,
            "talker_eos_token_id": self.codec_ends,
            "speaker": self.speakers[case.get("speaker", 0) % len(self.speakers)],
        }
        # The mask is what the processor returns. Without one the talker leaves out its codec tokens' embeddings.
        inputs = {"input_ids": torch.tensor([prompt_ids]), "attention_mask": torch.ones(1, len(prompt_ids), dtype=torch.long)}
        torch.manual_seed(seed)
        try:
            _, waveform = self.model.generate(**inputs, **arguments)
            self.seen["audio"] = waveform
        except (RuntimeError, ValueError, IndexError) as error:
            self.seen["reference_error"] = f"{type(error).__name__}: {error}"
        return {**self.seen, "rendered_prompt": rendered, "prompt_token_ids": prompt_ids, "speaker": arguments["speaker"]}


def found(wanted, result, text_ends):
    """Says whether a searched case shows what it is for."""
    if wanted == "the talker ends at once":
        return result.get("codes") == []
    if wanted == "both stages reach their limits":
        return result["token_ids"][-1] not in text_ends and result.get("codes_finish") == "length"
    if wanted == "both stages end by themselves":
        return (
            result["token_ids"][-1] in text_ends
            and len(result["token_ids"]) > 3
            and result.get("codes_finish") == "stop"
            and len(result["codes"]) > 6
        )
    raise SystemExit(f"unknown search {wanted!r}")


def answer(recorder, case):
    """Runs a case, searching for its seed and resolving its stop id where it asks for that."""
    text_ends = recorder.text_ends
    if "stop_at" in case:
        plain = recorder.run(case, case["seed"], text_ends)["token_ids"]
        text_ends = text_ends + [plain[int(case["stop_at"] * len(plain))]]
    for seed in range(case["seed"], case["seed"] + SEARCH_LIMIT):
        result = recorder.run(case, seed, text_ends)
        if "search" not in case or found(case["search"], result, text_ends):
            break
    else:
        print(f"{case['name']}: {case['search']}: not in {SEARCH_LIMIT} seeds, taken as it is", file=sys.stderr)
    result["seed"] = seed
    result["text_ends"] = text_ends
    return result


def stage_document(params, result, names, tolerances):
    """What one stage is given and what it answers; names maps keys of the document to keys of result."""
    document = {"params": params}
    document.update({key: result[name] for key, name in names.items() if name in result})
    if tolerances:
        document["tolerances"] = tolerances
    return document


def store(folder, checkpoint, case, result, recorder):
    """Writes the two files of a case."""
    thinker = {**case["thinker"], "stop_token_ids": result["text_ends"]}
    result["thinker_finish"] = "stop" if result["token_ids"][-1] in result["text_ends"] else "length"
    document = {
        "case": case["name"],
        "checkpoint": checkpoint,
        "reference": {
            "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
            "python": platform.python_version(), "dtype": "float32",
        },
        "messages": case["messages"],
        "seed": result["seed"],
        "speaker": result["speaker"],
        "rendered_prompt": result["rendered_prompt"],
        "prompt_token_ids": result["prompt_token_ids"],
        "text": recorder.tokenizer.decode(result["token_ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False),
        "stages": {
            "thinker": stage_document(
                {"sampling": thinker}, result,
                {"token_ids": "token_ids", "finish_reason": "thinker_finish", "rng_after": "rng_after_thinker"},
                TOLERANCES["thinker"],
            ),
            "talker": stage_document(
                {"sampling": case["talker"]}, result,
                {"token_ids": "codes", "finish_reason": "codes_finish", "rng_after": "rng_after_talker"}, None,
            ),
            "code2wav": stage_document(case.get("token2wav", {}), result, {}, TOLERANCES["code2wav"]),
        },
    }
    if "reference_error" in result:
        document["reference_error"] = result["reference_error"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{case['name']}.json").write_text(
        json.dumps(document, ensure_ascii=False, indent=1, sort_keys=False) + "\n", encoding="utf-8"
    )
    tensors = {
        f"{stage}.{name}": result[name].contiguous().float()
        for stage, names in TOLERANCES.items() for name in names if name in result
    }
    safetensors.torch.save_file(tensors, folder / f"{case['name']}.safetensors")
    audio = f"{len(result['audio'])} samples" if "audio" in result else result["reference_error"][:60]
    print(
        f"{folder.name}/{case['name']}: prompt {len(result['prompt_token_ids'])}, reply {len(result['token_ids'])} "
        f"({result['thinker_finish']}), codes {len(result.get('codes', []))} ({result.get('codes_finish')}), "
        f"seed {result['seed']}, {audio}"
    )


def record(source, target, checkpoint, cases):
    """Stores the cases' answers from the checkpoint in folder source below folder target."""
    checkpoint["sha256"] = checkpoint_sum(source)
    recorder = Recorder(source)
    for case in cases:
        store(target, checkpoint, case, answer(recorder, case), recorder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="CASE", help="names of cases, see cases.py")
    parser.add_argument("--make", default="go run ./cmd/omni-run", help="the command that knows make-checkpoint")
    parser.add_argument("--checkpoint", type=pathlib.Path, help="another checkpoint than our random ones")
    parser.add_argument("--out", type=pathlib.Path, help="where its goldens go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    cases = [case for case in CASES if not options.only or case["name"] in options.only]
    if options.checkpoint:
        if not options.out:
            parser.error("--checkpoint needs --out")
        record(options.checkpoint, options.out, {"path": str(options.checkpoint.resolve())}, cases)
        return
    for preset in PRESETS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary) / preset
            subprocess.run(
                [*options.make.split(), "make-checkpoint", "--family", FAMILY, "--preset", preset,
                 "--seed", str(CHECKPOINT_SEED), "--out", str(folder)],
                check=True, stdout=sys.stderr,
            )
            record(folder, HERE / preset, {"family": FAMILY, "preset": preset, "seed": CHECKPOINT_SEED}, cases)


if __name__ == "__main__":
    main()
