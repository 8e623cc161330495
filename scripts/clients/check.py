"""Talks to a running server as its users do: the OpenAI SDK and a Prometheus parser.

check.py URL KEY MODEL: exits with 0 if every answer is what these clients expect.
"""

import base64
import io
import json
import sys
import urllib.request
import wave

import openai
from prometheus_client.parser import text_string_to_metric_families

URL, KEY, MODEL = sys.argv[1:4]
HELLO = [{"role": "user", "content": "Hello, how are you?"}]


def chat(client):
    whole = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=24, seed=1,
        modalities=["text", "audio"], audio={"voice": "Ethan", "format": "wav"},
        extra_body={"return_stage_metrics": True, "sampling_params_list": [{"temperature": 0.0}, {"seed": 3}, {}]},
    )
    assert len(whole.choices) == 1, whole
    message = whole.choices[0].message
    assert message.role == "assistant" and message.content == message.audio.transcript, message
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    with wave.open(io.BytesIO(base64.b64decode(message.audio.data))) as file:
        assert file.getframerate() == 24000 and file.getnchannels() == 1 and file.getnframes() > 0
        frames = file.getnframes()
    assert [stage["name"] for stage in whole.metrics["stages"]] == ["thinker", "talker", "code2wav"], whole.metrics

    text, audio, transcript, usage, finish = "", b"", "", None, None
    with client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=24, seed=1, stream=True, stream_options={"include_usage": True},
        modalities=["text", "audio"], audio={"voice": "Ethan", "format": "pcm16"},
        extra_body={"sampling_params_list": [{"temperature": 0.0}, {"seed": 3}, {}]},
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                piece = choice.delta.audio
                audio += base64.b64decode(piece and piece.data or "")
                transcript += piece and piece.transcript or ""
    assert text == message.content == transcript, (text, message.content, transcript)
    assert len(audio) == 2 * frames, (len(audio), frames)
    assert usage.completion_tokens == whole.usage.completion_tokens and finish == whole.choices[0].finish_reason

    # An answer goes back as it came, as the SDK's users do it.
    again = client.chat.completions.create(
        model=MODEL, messages=HELLO + [message.model_dump(), {"role": "user", "content": "And now?"}],
        max_completion_tokens=5, modalities=["text"], stop=["\u0000never"], n=1, user="me",
    )
    assert again.choices[0].message.content is not None and again.choices[0].message.audio is None
    assert again.usage.prompt_tokens > whole.usage.prompt_tokens


def errors(client):
    def refused(kind, **arguments):
        try:
            client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **arguments})
        except kind as e:
            return e
        raise AssertionError(f"{arguments} was not refused with {kind}")

    e = refused(openai.BadRequestError, messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:,"}}]}])
    assert e.param == "messages[0].content[0].type" and e.type == "invalid_request_error", e
    assert e.request_id, "the SDK does not find the request's id"
    refused(openai.BadRequestError, audio={"voice": "alloy", "format": "wav"})
    refused(openai.NotFoundError, model="gpt-4o")
    try:
        openai.OpenAI(base_url=URL + "/v1", api_key="wrong", max_retries=0).models.list()
        raise AssertionError("a wrong key was taken")
    except openai.AuthenticationError:
        pass


def speech(client):
    for name in ("wav", "pcm", "flac", "mp3", "opus", "aac"):
        answer = client.audio.speech.create(
            model=MODEL, voice="Chelsie", input="Good morning", response_format=name, extra_body={"max_tokens": 16, "seed": 1})
        magic = {"wav": b"RIFF", "flac": b"fLaC", "opus": b"OggS"}.get(name, b"")
        assert answer.content.startswith(magic) and len(answer.content) > 100, name
    pieces = 0
    with client.audio.speech.with_streaming_response.create(
        model=MODEL, voice="Chelsie", input="Good morning", response_format="pcm", speed=1.0,
        extra_body={"max_tokens": 16, "seed": 1},
    ) as answer:
        for piece in answer.iter_bytes():
            pieces += len(piece)
    assert pieces > 0 and pieces % 2 == 0


def models(client):
    assert MODEL in [model.id for model in client.models.list()]


def metrics():
    request = urllib.request.Request(URL + "/metrics", headers={"Authorization": "Bearer " + KEY})
    with urllib.request.urlopen(request) as answer:
        families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
    for name in (
        "vllm_omni:num_requests_running", "vllm_omni:num_requests_waiting", "vllm_omni:e2e_request_latency_s",
        "vllm_omni:requests_success", "vllm_omni:stage_gen_time_s", "vllm_omni:stage_in_queue_s", "vllm_omni:audio_ttfp_s",
        "vllm_omni:audio_rtf", "vllm_omni:transfer_size_bytes", "omni:text_ttft_s", "omni:stage_ready", "omni:profiler_active",
    ):
        assert name in families, f"{name} is missing"
    done = sum(s.value for s in families["vllm_omni:requests_success"].samples)
    assert done >= 9, done
    assert {s.labels["stage_type"] for s in families["omni:stage_ready"].samples if s.value == 1} == {"thinker", "talker", "code2wav"}


def main():
    client = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0, timeout=120)
    for check, arguments in ((models, [client]), (chat, [client]), (errors, [client]), (speech, [client]), (metrics, [])):
        check(*arguments)
        print(json.dumps({"check": check.__name__, "ok": True}))


main()
