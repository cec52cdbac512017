"""The bundled model, and edits of its hook points by plain PyTorch hooks.

A hook point is a pair of a module path and `input` or `output`; `mixed` and `scores` of an attention are where
transformers has them: `mixed` is the input of `c_proj`, `scores` is what its eager attention gives the softmax.
"""

from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.models.gpt2 import modeling_gpt2

FOLDER = Path(__file__).parent.parent / "models" / "tiny-gpt2" / "model"


class Kept:
    """A value of a run."""

    value = None


class TinyGpt2:
    def __init__(self):
        self.model = AutoModelForCausalLM.from_pretrained(
            FOLDER, dtype=torch.float32, attn_implementation="eager").eval().requires_grad_(False)
        self.tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
        config = self.model.config
        self.layers, self.heads, self.head_size = config.n_layer, config.n_head, config.n_embd // config.n_head

    def ids(self, text):
        return self.tokenizer.encode(text).ids

    def prompt(self, text):
        """A prompt as the JSON files describe it."""
        ids = self.ids(text)
        return {"text": text, "ids": ids, "tokens": [self.tokenizer.decode([i]) for i in ids]}

    def word(self, word):
        """The one token of a word with its leading space."""
        ids = self.ids(" " + word)
        if len(ids) != 1:
            raise ValueError(f"{word!r} is not one token")
        return ids[0]

    def logits(self, ids):
        """[prompts, length, vocabulary] of prompts of equal length."""
        return self.model(input_ids=torch.tensor(ids), use_cache=False).logits

    def block(self, layer):
        return self.model.transformer.h[layer]

    @contextmanager
    def edit(self, module, where, function):
        """While it is open, the module's first input, or its output, is what `function` makes of a copy of it."""
        if where == "input":
            handle = module.register_forward_pre_hook(lambda m, args: (function(args[0].clone()), *args[1:]))
        else:
            def replace(m, args, output):
                if isinstance(output, tuple):
                    return (function(output[0].clone()), *output[1:])
                return function(output.clone())

            handle = module.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def kept(self, module, where):
        """What goes through a place while it is open, with its gradient: `.value`, a tensor of the computation."""
        kept = Kept()

        def keep(value):
            value.retain_grad()
            kept.value = value
            return value

        with self.edit(module, where, keep):
            yield kept

    @contextmanager
    def tracked(self):
        """While it is open, gradients reach back to the token embeddings, whose `.value` it gives; weights have none."""
        kept = Kept()

        def start(value):
            kept.value = value.detach().requires_grad_()
            return kept.value

        with self.edit(self.model.transformer.wte, "output", start):
            yield kept

    def place(self, name, layer):
        """The module, and its side, of the residual stream, the attention's and the MLP's output, or `mixed`."""
        block = self.block(layer)
        return {
            "residual": (block, "input"), "attention": (block.attn, "output"), "mlp": (block.mlp, "output"),
            "mixed": (block.attn.c_proj, "input"),
        }[name]

    def read(self, ids, name):
        """[layers, prompts, length, ...] of a place, from one run; `mixed` has its heads apart."""
        found = []
        with ExitStack() as stack:
            for layer in range(self.layers):
                stack.enter_context(self.edit(*self.place(name, layer), lambda value: found.append(value) or value))
            self.logits(ids)
        values = torch.stack(found)
        return values.unflatten(-1, (self.heads, self.head_size)) if name == "mixed" else values

    def set(self, name, layer, function):
        """An edit of a place. `mixed` is given with its heads apart: [prompts, length, heads, head size]."""
        def on_heads(value):
            return function(value.unflatten(-1, (self.heads, self.head_size))).flatten(-2)

        return self.edit(*self.place(name, layer), on_heads if name == "mixed" else function)

    @contextmanager
    def scores(self, function):
        """While it is open, `function(layer, scores)` makes what enters each softmax, [prompts, heads, length, context]."""
        eager, softmax = modeling_gpt2.eager_attention_forward, torch.nn.functional.softmax

        def wrapped(module, *args, **kwargs):
            torch.nn.functional.softmax = lambda scores, *a, **k: softmax(function(module.layer_idx, scores), *a, **k)
            try:
                return eager(module, *args, **kwargs)
            finally:
                torch.nn.functional.softmax = softmax

        modeling_gpt2.eager_attention_forward = wrapped
        try:
            yield
        finally:
            modeling_gpt2.eager_attention_forward = eager

    def patterns(self, ids):
        """[layers, prompts, heads, length, length]"""
        return torch.stack(self.model(input_ids=torch.tensor(ids), use_cache=False, output_attentions=True).attentions)

    def generate(self, ids, new_tokens, edits=None):
        """Greedy, without a cache and without stopping: the new ids and each step's logits [new tokens, vocabulary].
        `edits(length)` opens the edits of a run of that length."""
        tokens, steps = list(ids), []
        for _ in range(new_tokens):
            with edits(len(tokens)) if edits else ExitStack():
                logits = self.logits([tokens])[0, -1]
            steps.append(logits)
            tokens.append(logits.argmax().item())
        return tokens[len(ids) :], torch.stack(steps)
