"""Options of traces and models."""

from __future__ import annotations

import math
import operator
from typing import Any, Iterable


#: What to write instead of options that transformers and nnsight have.
_INSTEAD = {
    "input_ids": "token ids are a prompt: `model.trace(ids)`",
    "attention_mask": "prompts of unequal length are padded and masked by themselves",
    "output_attentions": "read them where they are wanted: `model.layers[k].attention.pattern.save()`",
    "output_hidden_states": 'read them where they are wanted: `tracer.get("layers.*.output").save()`',
    "num_return_sequences": "give the prompt so many times: `model.generate([prompt] * n, …)`",
    "max_length": "`max_new_tokens` counts what is made",
    "stop_strings": "`stop_texts`",
    "generation_config": "give its options one by one: `max_new_tokens`, `temperature`, `top_k`, `top_p`, …",
    "trace": "`model.run_with_hooks(prompt)` gives the logits at once",
    "load_in_8bit": "`dtype=\"bfloat16\"` halves the memory; GGUF files hold weights in fewer bits",
    "load_in_4bit": "`dtype=\"bfloat16\"` halves the memory; GGUF files hold weights in fewer bits",
}


def known(where: str, given: dict[str, Any], accepted: tuple[str, ...]) -> None:
    """Options of nnsight and transformers that need nothing here are passed over; any other is a slip."""
    for name in given:
        if name not in accepted:
            hint = f"\n  hint: {_INSTEAD[name]}" if name in _INSTEAD else ""
            raise TypeError(f"`{where}` has no option `{name}`{hint}")


def check_remote(remote: Any) -> None:
    """Refuses what is no service, before anything runs here in its place."""
    hint = '\n  hint: `remote="https://…"`, or `True` for the one that is set up; without `remote` all is here'
    if remote is not None and not isinstance(remote, (bool, str)):
        raise TypeError(f"`remote` is the address of a service, and not {remote!r}{hint}")
    if isinstance(remote, str) and not remote.strip():
        raise ValueError(f"`remote` is empty, and no address of a service{hint}")


def run_options(remote: Any, memory_bytes: Any, seconds: Any, naive: bool, blocking: bool) -> dict[str, Any]:
    """Where and in which bounds a program runs: what `execute` takes."""
    check_remote(remote)
    options: dict[str, Any] = {"memory_bytes": memory_bytes, "seconds": seconds}
    if naive:
        options["naive"] = True
    if remote:
        options["remote"] = remote
    if not blocking:
        options["blocking"] = False
    return options


def _whole(name: str, value: Any, hint: str) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"`{name}` is {_shown(value)}, not a whole number\n  hint: {hint}")
    if not 0 <= number < 1 << 63:
        raise ValueError(f"`{name}` is {_shown(value)}\n  hint: {hint}")
    return number


def _real(name: str, value: Any, hint: str) -> float:
    try:
        number = None if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise TypeError(f"`{name}` is {_shown(value)}, not a number\n  hint: {hint}")
    if not math.isfinite(number):
        raise ValueError(f"`{name}` is {_shown(value)}\n  hint: {hint}")
    return number


def _shown(value: Any) -> str:
    shown = repr(value) if not isinstance(value, int) or value.bit_length() < 256 else "too large"
    return shown if len(shown) <= 60 else f"<{type(value).__name__}>"


def generation(
    max_new_tokens: Any, temperature: Any, do_sample: bool | None, top_k: Any, top_p: Any, repetition_penalty: Any, stop_tokens: Any, stop_texts: Any
) -> dict[str, Any]:
    """How tokens are made, as programs hold it."""
    from ._tokenizer import _ids

    made: dict[str, Any] = {"max_new_tokens": _whole("max_new_tokens", max_new_tokens, "it is how many tokens are made at most")}
    if temperature is None:
        temperature = 1.0 if do_sample else 0.0
    temperature = _real("temperature", temperature, "0 is greedy, always the most probable token; 0.7 to 1 is usual")
    if temperature and do_sample is not False:
        made["temperature"] = temperature
    if top_k is not None:
        made["top_k"] = _whole("top_k", top_k, "of so many most probable tokens one is drawn; left out: of all")
    if top_p is not None:
        made["top_p"] = _real("top_p", top_p, "a number above 0 and at most 1; 0.9 is usual; left out: all tokens")
    if repetition_penalty is not None:
        made["repetition_penalty"] = _real("repetition_penalty", repetition_penalty, "a positive number; 1.1 is usual; left out: 1, no penalty")
    if stop_tokens is not None:
        hint = "they are token ids: `[model.token(\".\")]`; texts are `stop_texts`"
        try:
            listed = None if isinstance(stop_tokens, str) else _ids(stop_tokens)
        except (TypeError, ValueError):
            listed = None
        if listed is None:
            raise TypeError(f"`stop_tokens` is {_shown(stop_tokens)}\n  hint: {hint}")
        made["stop_tokens"] = [_whole("stop_tokens", token, hint) for token in listed]
    if stop_texts is not None:
        texts = [stop_texts] if isinstance(stop_texts, str) else list(stop_texts)
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"`stop_texts` has {_shown(text)}, which is no text\n  hint: token ids are `stop_tokens`")
        made["stop_texts"] = whole_texts("`stop_texts`", texts)
    return made


def whole_texts(what: str, texts: Iterable[Any]) -> list[Any]:
    """Texts as they are; half a surrogate pair is no character, and no tokenizer takes it."""
    listed = list(texts)
    for text in listed:
        if isinstance(text, (list, tuple)):
            whole_texts(what, text)
        elif isinstance(text, str):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                near = text[max(0, error.start - 12) : error.start + 12]
                raise ValueError(
                    f"{what} is no text: {near!r} has half a surrogate pair, {text[error.start]!r}, at place {error.start}\n  hint: it was cut "
                    "through or read wrongly: `text.encode(errors=\"replace\").decode()` puts `?` there"
                ) from None
    return listed
