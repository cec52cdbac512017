"""Reads every value of one forward pass of a transformers model, with plain PyTorch hooks.

Values are keyed by the module path that transformers uses. Nothing is computed a second time where it can be caught
on its way: attention's inner values are caught by wrapping the eager attention function and the softmax inside it.
The one exception is a norm's `scale`, which its module never forms.
"""

import sys
from contextlib import contextmanager

import torch

ACTIVATIONS = ("act", "act_fn")
DOWN_PROJECTIONS = ("c_proj", "dense_4h_to_h", "down_proj")
OUTPUT_PROJECTIONS = ("c_proj", "dense", "out_proj", "o_proj")


def is_norm(module) -> bool:
    return "Norm" in type(module).__name__


def is_attention(module) -> bool:
    return type(module).__name__.endswith("Attention")


def is_mlp(module) -> bool:
    return type(module).__name__.endswith("MLP")


def output_projection(attention):
    return next(getattr(attention, name) for name in OUTPUT_PROJECTIONS if hasattr(attention, name))


def layers_of(model):
    """The module path and the module of each decoder layer."""
    layers = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    prefix = next(path for path, module in model.named_modules() if module is layers)
    return [(f"{prefix}.{i}", layer) for i, layer in enumerate(layers)]


def first_tensor(values):
    return next((value for value in values if isinstance(value, torch.Tensor)), None)


class Capture:
    """`values` after a forward pass inside `recording`: key to tensor, in the order of the computation."""

    def __init__(self, model, keep_gradients=False):
        self.model = model
        self.keep_gradients = keep_gradients
        self.values: dict[str, torch.Tensor] = {}
        self.calls: dict[str, list] = {path: [None, None] for path, _ in model.named_modules()}
        self.attention: list[str] = []
        self.flattened: set[str] = set()

    def record(self, key, value):
        """Notes a value; with gradients, hands back a copy of it through which the computation has to pass, so
        that its gradient is that of this hook point alone."""
        if self.keep_gradients and value.is_floating_point():
            value = value.clone()
            if not value.requires_grad:
                value.requires_grad_()
            value.retain_grad()
        self.values[key] = value if self.keep_gradients else value.detach().clone()
        return value

    def before(self, path, module, args, kwargs):
        if is_attention(module):
            self.attention.append(path)
        name = None if args and isinstance(args[0], torch.Tensor) else next(
            (n for n in ("hidden_states", "input_ids") if isinstance(kwargs.get(n), torch.Tensor)), None)
        value = kwargs[name] if name else first_tensor(args)
        # OPT's position embedding is called with the attention mask, which is no value of the model.
        if value is None or type(module).__name__ == "OPTLearnedPositionalEmbedding":
            return None
        self.calls[path][0] = list(value.shape)
        value = self.record(key_of(path, "input"), value)
        if is_norm(module) and not self.keep_gradients:
            self.values[f"{path}.scale"] = norm_scale(module, value)
        return (args, kwargs | {name: value}) if name else ((value, *args[1:]), kwargs)

    def after(self, path, module, output):
        if is_attention(module):
            self.attention.pop()
        if isinstance(output, torch.Tensor):
            self.calls[path][1] = list(output.shape)
            return self.record(key_of(path, "output"), output)
        if isinstance(output, tuple) and not hasattr(output, "keys"):
            self.calls[path][1] = list(output[0].shape)
            return (self.record(key_of(path, "output"), output[0]), *output[1:])
        # A ModelOutput's first member; these modules only pass on what a module below them made.
        self.calls[path][1] = list(output[0].shape)
        if not self.keep_gradients:
            self.record(key_of(path, "output"), output[0])
        return None

    def wrap_eager(self, eager):
        def wrapped(module, query, key, value, attention_mask, **kwargs):
            path = self.attention[-1]

            def inner(name, tensor):
                return self.record(f"{path}.{name}", tensor.transpose(1, 2)).transpose(1, 2)

            query, key, value = inner("query", query), inner("key", key), inner("value", value)
            softmax = torch.nn.functional.softmax

            def caught(scores, *args, **options):
                # transformers masks with the most negative number; the meaning is minus infinity.
                masked = (attention_mask < torch.finfo(scores.dtype).min / 2).expand_as(scores)
                scores = self.record(f"{path}.scores", scores.masked_fill(masked, -torch.inf))
                return self.record(f"{path}.pattern", softmax(scores, *args, **options))

            torch.nn.functional.softmax = caught
            try:
                mixed, pattern = eager(module, query, key, value, attention_mask, **kwargs)
            finally:
                torch.nn.functional.softmax = softmax
            return self.record(f"{path}.mixed", mixed), pattern

        return wrapped

    def wrap_rotation(self, rotate):
        def wrapped(query, key, *args, **kwargs):
            path = self.attention[-1]
            query = self.record(f"{path}.query_pre", query.transpose(1, 2)).transpose(1, 2)
            key = self.record(f"{path}.key_pre", key.transpose(1, 2)).transpose(1, 2)
            return rotate(query, key, *args, **kwargs)

        return wrapped

    @contextmanager
    def recording(self):
        handles = []
        for path, module in self.model.named_modules():
            if "rotary" in path or isinstance(module, torch.nn.ModuleList):
                continue
            handles.append(module.register_forward_pre_hook(
                lambda module, args, kwargs, path=path: self.before(path, module, args, kwargs), with_kwargs=True))
            handles.append(module.register_forward_hook(
                lambda module, args, output, path=path: self.after(path, module, output)))
        code = sys.modules[type(self.model).__module__]
        originals = {name: getattr(code, name) for name in ("eager_attention_forward", "apply_rotary_pos_emb")
                     if hasattr(code, name)}
        code.eager_attention_forward = self.wrap_eager(originals["eager_attention_forward"])
        if "apply_rotary_pos_emb" in originals:
            code.apply_rotary_pos_emb = self.wrap_rotation(originals["apply_rotary_pos_emb"])
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            for name, original in originals.items():
                setattr(code, name, original)
        self.add_mlp_names()

    def add_mlp_names(self):
        for path, module in self.model.named_modules():
            if not is_mlp(module):
                continue
            activation = next(name for name in ACTIVATIONS if hasattr(module, name))
            down = next(name for name in DOWN_PROJECTIONS if hasattr(module, name))
            self.values[f"{path}.pre"] = self.values[f"{path}.{activation}.input"]
            self.values[f"{path}.post"] = self.values[f"{path}.{down}.input"]
            if hasattr(module, "up_proj"):
                self.values[f"{path}.up"] = self.values[f"{path}.up_proj.output"]

    def unflattened(self, length):
        """The values with [prompts, length, ...] restored: OPT's layers pass [prompts * length, ...] to their
        second half."""
        result = {}
        for key, value in self.values.items():
            if value.dim() == 2 and value.shape[0] == length and value.is_floating_point():
                self.flattened.add(key)
                value = value.reshape(1, *value.shape)
            result[key] = value
        return result


def key_of(path, name):
    return f"{path}.{name}" if path else name


def norm_scale(module, value):
    value = value.detach()
    if isinstance(module, torch.nn.LayerNorm):
        return torch.sqrt(value.var(-1, keepdim=True, correction=0) + module.eps)
    epsilon = getattr(module, "variance_epsilon", None) or module.eps
    return torch.sqrt(value.pow(2).mean(-1, keepdim=True) + epsilon)
