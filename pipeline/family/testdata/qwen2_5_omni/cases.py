"""The requests whose answers make_goldens.py stores: one list, run on every preset.

A case is a dictionary. Its fields are those of a request (messages, speaker, seed, sampling per stage) in the words of
this project; make_goldens.py translates them into arguments of transformers' generate. "speaker" is an index into the
checkpoint's speakers. "search" repeats the case with seed, seed+1, ... until the named thing happens. "stop_at" adds a
stop id: the one that stands at this fraction of the reply without it.
"""

SPEECH_SYSTEM = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory and visual "
    "inputs, as well as generating text and speech."
)

GREEDY = {"temperature": 0.0, "max_tokens": 40}
SAMPLED = {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1, "max_tokens": 40}
TALK = {"temperature": 0.9, "top_k": 40, "top_p": 0.8, "repetition_penalty": 1.05, "max_tokens": 48}
TALK_GREEDY = {"temperature": 0.0, "repetition_penalty": 1.05, "max_tokens": 32}

LONG = " ".join(
    f"Paragraph {i}: the harbour wakes before the town does, ropes creak, and {i * 7 + 3} gulls argue about nothing."
    for i in range(1, 8)
)


def user(text):
    return [{"role": "user", "content": text}]


def spoken(text):
    return [{"role": "system", "content": SPEECH_SYSTEM}, *user(text)]


CASES = [
    {"name": "greedy", "messages": user("Hello, who are you?"), "seed": 42, "thinker": GREEDY, "talker": TALK_GREEDY},
    {"name": "sampled", "messages": spoken("Tell me about the lighthouse."), "seed": 7, "thinker": SAMPLED, "talker": TALK},
    {
        "name": "sampled-open", "messages": user("Why?"), "seed": 123456789, "speaker": 1,
        "thinker": {"temperature": 1.3, "max_tokens": 24},
        "talker": {"temperature": 1.2, "top_p": 0.95, "repetition_penalty": 1.2, "max_tokens": 40},
    },
    {
        "name": "mixed", "messages": user("Sing something, please."), "seed": 3, "speaker": 2,
        "thinker": {"temperature": 0.0, "repetition_penalty": 1.3, "max_tokens": 30}, "talker": TALK,
    },
    {
        "name": "sampled-then-greedy", "messages": user("1 2 3 4 5"), "seed": 99,
        "thinker": {"temperature": 0.7, "top_p": 0.8, "max_tokens": 30}, "talker": TALK_GREEDY,
    },
    {
        "name": "unicode", "seed": 11, "speaker": 1, "thinker": SAMPLED, "talker": TALK,
        "messages": spoken("Cafe\u0301 nai\u0308ve 你好，世界！こんにちは 안녕 مرحبا 👩‍🚀🙂 \t x²≥½\n\n  <|im_end|> don't"),
    },
    {
        "name": "turns", "seed": 5, "thinker": SAMPLED, "talker": TALK,
        "messages": [
            {"role": "system", "content": "You are a patient reader."},
            {"role": "user", "content": "Read this in a quiet voice."},
            {"role": "assistant", "content": "Of course. Here is the poem, and here is the quiet."},
            {"role": "user", "content": "Louder!"},
        ],
    },
    {"name": "long", "messages": spoken(LONG), "seed": 17, "speaker": 1, "thinker": SAMPLED, "talker": TALK},
    {
        "name": "limit", "messages": user("Say it slowly."), "seed": 1, "search": "both stages reach their limits",
        "thinker": {**SAMPLED, "max_tokens": 2}, "talker": {**TALK, "max_tokens": 5},
    },
    {
        "name": "ends", "messages": user("Where is the station?"), "seed": 1, "search": "both stages end by themselves",
        "thinker": {**SAMPLED, "max_tokens": 60}, "talker": {**TALK, "max_tokens": 80},
    },
    {
        "name": "stop-id", "messages": user("Hello, who are you?"), "seed": 8, "stop_at": 0.5,
        "thinker": GREEDY, "talker": TALK,
    },
    {
        "name": "at-least", "messages": user("Where is the station?"), "seed": 1,
        "thinker": {**SAMPLED, "min_tokens": 30}, "talker": {**TALK, "max_tokens": 60, "min_tokens": 40},
    },
    {
        "name": "solver", "messages": user("Listen."), "seed": 21, "thinker": GREEDY, "talker": {**TALK, "max_tokens": 20},
        "token2wav": {"num_steps": 5, "guidance_scale": 1.5, "sway_coefficient": -0.4},
    },
    {
        "name": "unguided", "messages": user("Listen."), "seed": 22, "thinker": GREEDY, "talker": {**TALK, "max_tokens": 20},
        "token2wav": {"num_steps": 4, "guidance_scale": 0.0, "sway_coefficient": 0.0},
    },
    {
        # transformers fails here: the talker has no reply rows to read. Ours answers with the text and no audio.
        "name": "one-token", "messages": user("Yes or no?"), "seed": 2,
        "thinker": {"temperature": 0.0, "max_tokens": 1}, "talker": TALK,
    },
    {
        # transformers fails here: token2wav gets no codes. Ours answers with the text and no audio.
        "name": "no-codes", "messages": user("Be silent."), "seed": 100, "search": "the talker ends at once",
        "thinker": {**SAMPLED, "max_tokens": 6}, "talker": {**TALK, "temperature": 2.0, "top_p": 1.0, "top_k": -1},
    },
]
