"""Writes sampler_golden.json and rng_golden.json: what Python's torch draws and what transformers' generate() chooses.

    python3 csrc/tests/testdata/sampler_golden.py        (torch 2.15.0, transformers 5.23.0, on the CPU)

The C++ side must give the same tokens and numbers exactly. Logits are randn * scale from their own generator, so that
the files stay small and the tests cover torch::randn as well.
"""

import base64
import json
import pathlib

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

FOLDER = pathlib.Path(__file__).parent

# vocabulary, steps, params; each step samples from new logits and appends its token to the history.
SAMPLER_CASES = [
    ("greedy", 50, 12, dict(temperature=0.0)),
    ("greedy_penalty", 20, 24, dict(temperature=0.0, repetition_penalty=1.7)),
    ("greedy_suppress", 20, 12, dict(temperature=0.0, suppress_tokens=[3, 7, 19])),
    ("plain", 50, 24, dict(temperature=1.0)),
    ("cold", 50, 24, dict(temperature=0.3)),
    ("hot", 50, 24, dict(temperature=2.5)),
    ("top_k", 200, 24, dict(temperature=1.0, top_k=7)),
    ("top_k_of_one", 200, 12, dict(temperature=1.0, top_k=1)),
    ("top_k_beyond_vocabulary", 30, 12, dict(temperature=1.0, top_k=1000)),
    ("top_k_off", 30, 12, dict(temperature=1.0, top_k=-1)),
    ("top_p", 200, 24, dict(temperature=1.0, top_p=0.6)),
    ("top_p_tiny", 200, 12, dict(temperature=1.0, top_p=1e-6)),
    ("top_p_zero", 200, 12, dict(temperature=1.0, top_p=0.0)),
    ("talker", 8448, 16, dict(temperature=0.9, top_k=40, top_p=0.8, repetition_penalty=1.05, suppress_tokens=[8293])),
    ("everything", 300, 40, dict(temperature=0.8, top_k=25, top_p=0.95, repetition_penalty=1.3, suppress_tokens=[1, 2])),
    ("lowering_penalty", 40, 24, dict(temperature=1.0, repetition_penalty=0.7)),
    ("released_vocabulary", 151936, 4, dict(temperature=0.7, top_p=0.9, top_k=20, repetition_penalty=1.1)),
    ("ties", 64, 24, dict(temperature=1.0, top_k=5, top_p=0.9)),
    ("min_tokens_greedy", 12, 12, dict(temperature=0.0, min_tokens=8, stop_token_ids=[1, 4, 6, 7, 9])),
    ("min_tokens", 12, 16, dict(temperature=1.0, top_k=4, repetition_penalty=1.2, min_tokens=11, stop_token_ids=[0, 2, 3, 8])),
]


def processors(params, prompt):
    """The list that generate() builds for these options and a prompt of so many tokens, in its order."""
    result = LogitsProcessorList()
    if params.get("repetition_penalty", 1.0) != 1.0:
        result.append(RepetitionPenaltyLogitsProcessor(params["repetition_penalty"]))
    if params.get("min_tokens"):
        result.append(MinNewTokensLengthLogitsProcessor(prompt, params["min_tokens"], params["stop_token_ids"]))
    if params.get("suppress_tokens"):
        result.append(SuppressTokensLogitsProcessor(params["suppress_tokens"]))
    if params["temperature"] != 0:
        if params["temperature"] != 1.0:
            result.append(TemperatureLogitsWarper(params["temperature"]))
        if params.get("top_k", -1) > 0:
            result.append(TopKLogitsWarper(params["top_k"]))
        if params.get("top_p", 1.0) < 1.0:
            result.append(TopPLogitsWarper(params["top_p"]))
    return result


def run_case(name, vocabulary, steps, params, number):
    logits_seed, seed = 1000 + number, 2000 + number
    logits_generator = torch.Generator().manual_seed(logits_seed)
    torch.manual_seed(seed)
    # Ids at and above the vocabulary are ignored by the penalty.
    history = [0, 5, 5, vocabulary - 1, vocabulary, vocabulary + 7]
    prompt = list(history)
    tokens = []
    for _ in range(steps):
        logits = torch.randn(vocabulary, generator=logits_generator) * 3
        if name == "ties":
            logits = logits.round()
        scores = processors(params, len(prompt))(torch.tensor([history]), logits[None])
        if params["temperature"] == 0:
            token = torch.argmax(scores, dim=-1).item()
        else:
            probs = torch.nn.functional.softmax(scores, dim=-1)
            token = torch.multinomial(probs, num_samples=1).squeeze(1).item()
        history.append(token)
        tokens.append(token)
    return {
        "name": name,
        "vocabulary": vocabulary,
        "logits_seed": logits_seed,
        "seed": seed,
        "round": name == "ties",
        "prompt": prompt,
        "params": {**params, "max_tokens": steps},
        "tokens": tokens,
        "after": draws_after(),
    }


def draws_after():
    """Where the generator stands: one normal (half of a pair may be left over from before) and two uniform draws."""
    return torch.randn(1).tolist() + torch.rand(2).tolist()


def rng_case(seed):
    torch.manual_seed(seed)
    case = {
        "seed": torch.initial_seed(),  # a negative seed as the unsigned number that torch makes of it
        "rand": torch.rand(5).tolist(),
        "randn": torch.randn(5).tolist(),
        "randn_long": torch.randn(1, 40, 80).double().sum().item(),
        "multinomial": [torch.multinomial(torch.arange(1.0, 101.0)[None], 1).item() for _ in range(5)],
        "randint": torch.randint(0, 1 << 40, (3,)).tolist(),
    }
    case["after"] = draws_after()
    return case


def main():
    cases = [run_case(*case, number) for number, case in enumerate(SAMPLER_CASES)]
    (FOLDER / "sampler_golden.json").write_text(json.dumps(cases, indent=1) + "\n")

    torch.manual_seed(7)
    torch.randn(3)  # an odd number leaves half of a pair of normal values in the state
    state = base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()
    resumed = {"state_base64": state, "randn": torch.randn(5).tolist(), "rand": torch.rand(5).tolist()}
    seeds = [0, 1, 42, 5489, (1 << 63) + 5, -1]
    document = {"resumed": resumed, "seeded": [rng_case(seed) for seed in seeds]}
    (FOLDER / "rng_golden.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
