"""What is laid over a model by a trace or an edit: LoRA adapters, sparse autoencoders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from . import _core
from ._errors import ModelError
from ._tensor import Tensor

if TYPE_CHECKING:
    from ._model import Model


class Lora:
    """A LoRA adapter in the layout of the `peft` library: each of its linear layers gives `output + scale · B (A input)`.

    `pl.Lora("path/to/adapter")` opens a folder or a hub id; `pl.Lora.new(…)` begins one.
    """

    def __init__(self, source: str | os.PathLike[str]):
        self._set(_core.Lora.open(str(source)))

    @classmethod
    def _of(cls, core: _core.Lora) -> Lora:
        lora = cls.__new__(cls)
        lora._set(core)
        return lora

    def _set(self, core: _core.Lora) -> None:
        self._core = core
        #: Of each linear layer: path and scale.
        self._layers: list[tuple[str, float]] = []
        #: Its matrices by name: `a0` `[rank, in]` and `b0` `[out, rank]` of the first layer, `a1`, `b1`, …: what a loop can carry.
        self.parameters: dict[str, Tensor] = {}
        for number, (path, scale, a, b) in enumerate(core.matrices()):
            self._layers.append((path, scale))
            self.parameters[f"a{number}"], self.parameters[f"b{number}"] = Tensor._computed(a), Tensor._computed(b)
        self._turned: dict[str, Tensor] = {}

    @staticmethod
    def new(model: Model, rank: int, alpha: float, targets: Sequence[str], seed: int = 0) -> Lora:
        """A new adapter for the linear layers whose paths end with one of `targets` (`c_attn`, `mlp.c_proj`), as `peft` begins one: A
        random by the seed, B zero, so that it changes nothing before it is trained."""
        return Lora._of(_core.Lora.begun(model._core, rank, float(alpha), list(targets), seed))

    @property
    def modules(self) -> list[str]:
        """The paths of its linear layers."""
        return [path for path, _ in self._layers]

    def attach(self, model: Model, parameters: Mapping[str, Any] | None = None) -> None:
        """Puts it on the invoke that is open, or on the model that is edited; with `parameters`, other matrices by their names, as those
        that a loop trains. In a generation it stands at the steps that are written: `with tracer.all():`."""
        self._core.check(model._core)
        given = {} if parameters is None else dict(parameters)
        unknown = [name for name in given if name not in self.parameters]
        if unknown:
            raise KeyError(f"the adapter has no matrix `{unknown[0]}`; there are {', '.join(self.parameters)}")
        for number, (path, scale) in enumerate(self._layers):
            module: Any = model.module(path)
            a, b = (given[name].T if name in given else self._own_turned(name) for name in (f"a{number}", f"b{number}"))
            module.output = module.output + module.input @ a @ b * scale

    def _own_turned(self, name: str) -> Tensor:
        # Turned once, so that it travels once with a program however often it is attached.
        if name not in self._turned:
            self._turned[name] = self.parameters[name].T
        return self._turned[name]

    def with_parameters(self, parameters: Mapping[str, Any]) -> Lora:
        """The same adapter with other matrices, as results of training."""
        new = {**self.parameters, **parameters}
        pairs = [(_here(new[f"a{number}"]), _here(new[f"b{number}"])) for number in range(len(self._layers))]
        return Lora._of(self._core.with_matrices(pairs))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes it to a folder, in `peft`'s layout."""
        self._core.save(str(folder))

    def __repr__(self) -> str:
        return f"Lora({len(self._layers)} linear layers)"


def _here(value: Any) -> _core.Tensor:
    tensor = value if isinstance(value, Tensor) else Tensor(value)
    return tensor._here("it becomes an adapter's")


class Splice:
    """An autoencoder at a hook point: what it says there, and what it leaves out."""

    def __init__(self, features: Tensor, error: Tensor):
        #: The features' strengths, `[prompts, length, features]`.
        self.features = features
        #: The hook point's value less what is decoded from them, in its shape.
        self.error = error


class Splicing:
    """`with autoencoder.splice(model) as splice:`: what the block makes of `splice.features` and `splice.error` goes back."""

    def __init__(self, autoencoder: SparseAutoencoder, model: Model, hook: str):
        self._autoencoder, self._model, self._hook = autoencoder, model, hook

    def __enter__(self) -> Splice:
        self._value = self._autoencoder._fits(self._model, self._hook)
        self._splice, self._undo = self._autoencoder._read(self._value)
        return self._splice

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            from ._lens import _assign

            decoded = self._autoencoder._decode(self._splice.features, self._undo, self._value)
            _assign(self._model, self._hook, decoded + self._splice.error)


class SparseAutoencoder:
    """A sparse autoencoder in the layout of the SAELens library: `pl.SparseAutoencoder("path/to/folder")`, or a hub id and, in a
    repository of many, which: `pl.SparseAutoencoder("jbloom/GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre")`."""

    #: `W_enc`, `[width, features]`.
    encoder: Tensor
    #: `b_enc`, `[features]`.
    encoder_bias: Tensor
    #: `W_dec`, `[features, width]`; its rows are the features' directions.
    decoder: Tensor
    #: `b_dec`, `[width]`.
    decoder_bias: Tensor
    #: Of a jump-ReLU, `[features]`.
    threshold: Tensor | None

    def __init__(self, source: str | os.PathLike[str], inside: str | None = None):
        self._core = _core.SparseAutoencoder.open(str(source), inside)
        self._parts = self._core.parts()
        for name in ("encoder", "encoder_bias", "decoder", "decoder_bias", "threshold"):
            core = self._parts[name]
            setattr(self, name, None if core is None else Tensor._computed(core))

    @property
    def features(self) -> int:
        """How many features it has."""
        return int(self.encoder_bias.shape[0])

    @property
    def width(self) -> int:
        """The width of what it reads."""
        return int(self.decoder_bias.shape[0])

    def hook_point(self, model: Model) -> str:
        """The hook point that it was trained on, under this model's names."""
        return self._core.hook_point(model._core)

    def read(self, model: Model, hook: str | None = None) -> Splice:
        """What it says of the invoke that is open, at the hook point that it was trained on or another. The model goes on as it
        would."""
        return self._read(self._fits(model, hook or self.hook_point(model)))[0]

    def splice(self, model: Model, hook: str | None = None) -> Splicing:
        """Puts it into the invoke that is open, or into the model that is edited: `with autoencoder.splice(model) as splice:`. After the
        block the hook point is what is decoded from `splice.features`, plus `splice.error`; unchanged, the model goes on as it would but
        for rounding."""
        return Splicing(self, model, hook or self.hook_point(model))

    def _fits(self, model: Any, hook: str) -> Tensor:
        """The hook point's value, if it is as wide as what the autoencoder reads."""
        value: Tensor = model[hook]
        width = value.shape[-1] if not self._parts["by_heads"] else value.shape[-2:].numel()
        if width != self.width:
            raise ModelError(
                f"the autoencoder reads values {self.width} wide, and `{hook}` is {width} wide\n  hint: it was trained on another model, or "
                "at another hook point, which `.splice(model, hook)` takes"
            )
        return value

    def _read(self, value: Tensor) -> tuple[Splice, Any]:
        features, undo = self._encode(value)
        return Splice(features, value - self._decode(features, undo, value)), undo

    def _encode(self, value: Tensor) -> tuple[Tensor, Any]:
        """The features, and what the normalisation has to be undone with."""
        parts = self._parts
        x = value.flatten(-2, -1) if parts["by_heads"] else value
        if parts["centred"]:
            x = x - x.mean(-1, keepdim=True)
        undo: Callable[[Tensor], Tensor] | None = None
        if parts["normalisation"] == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            x = x - mean
            deviation = x.std(-1, keepdim=True)
            x, undo = x / (deviation + 1e-5), lambda decoded: decoded * deviation + mean
        elif parts["normalisation"] == "constant_norm":
            factor = self.width**0.5 / x.norm(dim=-1, keepdim=True)
            x, undo = x * factor, lambda decoded: decoded / factor
        if parts["subtracts_decoder_bias"]:
            x = x - self.decoder_bias
        before = x @ self.encoder + self.encoder_bias
        positive = before.relu()
        if self.threshold is not None:
            from ._operations import where

            return where(before > self.threshold, positive, 0.0), undo
        if parts["top_k"] is not None:
            largest, places = positive.topk(parts["top_k"], -1)
            return (positive * 0.0).scatter(-1, places, largest), undo
        return positive, undo

    def _decode(self, features: Tensor, undo: Any, like: Tensor) -> Tensor:
        """What the features say, in the shape of `like`."""
        x = features @ self.decoder + self.decoder_bias
        if undo is not None:
            x = undo(x)
        return x.unflatten(-1, tuple(like.shape[-2:])) if self._parts["by_heads"] else x

    def __repr__(self) -> str:
        return f"SparseAutoencoder({self.width} → {self.features})"
