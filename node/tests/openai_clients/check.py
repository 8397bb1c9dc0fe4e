"""Checks a gateway with the official `openai` package: what its users run, unmodified.

usage: check.py BASE_URL MODEL [API_KEY]

BASE_URL ends in /v1. Prints what it saw, one line a check, and exits with 1 and a message at the
first thing that is not as OpenAI's own service would have it.
"""

import sys

import openai

PROMPT = "Say these words again: one two three"
FIELDS = {"job", "provider", "tier", "simulated", "model", "seed", "price_nanoton", "receipt"}


class Mismatch(Exception):
    """The gateway answered otherwise than OpenAI would."""


def expect(holds, message):
    if not holds:
        raise Mismatch(message)


def show(check, **seen):
    print(check, *(f"{name}={value!r}" for name, value in seen.items()), flush=True)


def raised(kind, call):
    """The error of the given class that `call` must raise."""
    try:
        call()
    except kind as error:
        return error
    except openai.OpenAIError as error:
        raise Mismatch(f"expected {kind.__name__}, got {type(error).__name__}: {error}") from error
    raise Mismatch(f"expected {kind.__name__}, got an answer")


def check_cocoon(answer):
    cocoon = (answer.model_extra or {}).get("cocoon")
    expect(isinstance(cocoon, dict), f"an answer must carry a `cocoon` object, got {cocoon!r}")
    expect(FIELDS <= cocoon.keys(), f"`cocoon` lacks {sorted(FIELDS - cocoon.keys())}")
    expect(isinstance(cocoon["price_nanoton"], int), "a finished answer must have a price")
    return cocoon


def check_usage(usage):
    expect(usage is not None, "the token counts are missing")
    expect(usage.prompt_tokens > 0, f"no prompt tokens were counted: {usage}")
    expect(usage.completion_tokens > 0, f"no completion tokens were counted: {usage}")
    total = usage.prompt_tokens + usage.completion_tokens
    expect(usage.total_tokens == total, f"the token counts do not add up: {usage}")


def check_models(client, model):
    ids = [listed.id for listed in client.models.list()]
    expect(model in ids, f"{model} is not among the models {ids}")
    found = client.models.retrieve(model)
    expect(found.id == model, f"asked for {model}, got {found.id}")
    show("models", ids=ids)


def check_stream(client, model):
    chunks = client.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}],
        stream=True,
        stream_options={"include_usage": True},
        max_completion_tokens=32,
        temperature=0,
        seed=7,
        user="check",
    )
    text, role, reasons, last, ids = "", None, [], None, set()
    for chunk in chunks:
        ids.add(chunk.id)
        expect(chunk.object == "chat.completion.chunk", f"a chunk calls itself {chunk.object}")
        for choice in chunk.choices:
            role = role or choice.delta.role
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
        last = chunk
    expect(last is not None, "the stream has no chunks")
    expect(role == "assistant", f"the first chunk must say the role, got {role!r}")
    expect(text, "the stream has no text")
    expect(len(ids) == 1, f"all chunks of an answer share one id, got {ids}")
    expect(reasons in (["stop"], ["length"]), f"a stream ends once, by stop or length: {reasons}")
    expect(last.choices == [], "the chunk with the token counts has no choices")
    check_usage(last.usage)
    cocoon = check_cocoon(last)
    show("stream", text=text, usage=last.usage.to_dict(), tier=cocoon["tier"])


def check_whole(client, model):
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": [{"type": "text", "text": PROMPT}]}],
        max_tokens=32,
        stop=["\n\n\n"],
        extra_body={"cocoon": {"tier": "open", "max_cost": "10 TON"}},
    )
    answer = raw.parse()
    choice = answer.choices[0]
    expect(choice.message.role == "assistant", f"the role is {choice.message.role!r}")
    expect(choice.message.content, "the answer has no text")
    expect(choice.finish_reason in ("stop", "length"), f"it ended by {choice.finish_reason!r}")
    check_usage(answer.usage)
    cocoon = check_cocoon(answer)
    for field in ("provider", "tier", "job"):
        header = raw.headers.get(f"x-cocoon-{field}")
        expect(header == cocoon[field], f"x-cocoon-{field} is {header!r}, not {cocoon[field]!r}")
    show("chat", text=choice.message.content, price_nanoton=cocoon["price_nanoton"])
    # The answer as it came must be good as part of the next prompt.
    dialogue = [
        {"role": "user", "content": PROMPT},
        choice.message.model_dump(),
        {"role": "user", "content": "Again, please"},
    ]
    again = client.chat.completions.create(model=model, messages=dialogue, max_tokens=8)
    expect(again.choices[0].message.content, "the second answer has no text")
    show("dialogue", text=again.choices[0].message.content)


def check_completions(client, model):
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8)
    expect(answer.object == "text_completion", f"a completion calls itself {answer.object}")
    expect(answer.choices[0].text, "the completion has no text")
    check_usage(answer.usage)
    check_cocoon(answer)
    stream = client.completions.create(
        model=model, prompt="Once upon a time", max_tokens=8, stream=True
    )
    text = "".join(choice.text for chunk in stream for choice in chunk.choices)
    expect(text, "the streamed completion has no text")
    show("completions", text=answer.choices[0].text, streamed=text)


def check_errors(client, model):
    turns = [{"role": "user", "content": "hi"}]

    def chat(**fields):
        return lambda: client.chat.completions.create(
            **({"model": model, "messages": turns} | fields)
        )

    error = raised(openai.BadRequestError, chat(temperature=9))
    expect(error.param == "temperature", f"`param` is {error.param!r}")
    error = raised(openai.BadRequestError, chat(n=2))
    expect((error.param, error.code) == ("n", "unsupported_parameter"), f"{error.body}")
    error = raised(openai.BadRequestError, chat(extra_body={"temprature": 1}))
    expect((error.param, error.code) == ("temprature", "unknown_parameter"), f"{error.body}")
    error = raised(openai.NotFoundError, chat(model="no-such-model"))
    expect(error.code == "model_not_found", f"{error.body}")
    raised(openai.NotFoundError, chat(model="no-such-model", stream=True))
    raised(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))
    raised(openai.NotFoundError, lambda: client.embeddings.create(model=model, input="hi"))
    show("errors", message=error.message)


def main(arguments):
    if len(arguments) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    base_url, model, *key = arguments
    client = openai.OpenAI(base_url=base_url, api_key=key[0] if key else "none", timeout=300)
    for check in (check_models, check_stream, check_whole, check_completions, check_errors):
        try:
            check(client, model)
        except (Mismatch, openai.OpenAIError) as error:
            print(f"{check.__name__}: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
