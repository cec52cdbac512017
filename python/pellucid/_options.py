"""Options of traces and models."""

from __future__ import annotations

from typing import Any


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
