"""Steering vectors: made once, kept in files, applied to traces."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from ._errors import PellucidError
from ._tensor import Tensor
from ._core import Tensor as Core

_METADATA = "pellucid.steering"
_VECTOR = "vector"
_MAXIMUM_HEADER = 1 << 20


class Steering:
    """A vector that is added at a hook point: `Steering("layers.2.output", vector, scale=4.0)`.

    `positions`, a slice, chooses tokens of the prompt; `prompt` and `generated` whether it is added to the prompt's tokens and to those that
    are generated. `[hidden]`.
    """

    def __init__(
        self,
        hook: str,
        vector: Any,
        scale: float = 1.0,
        positions: slice | None = None,
        prompt: bool = True,
        generated: bool = True,
    ):
        vector = vector if isinstance(vector, Tensor) else Tensor(vector)
        if len(vector.shape) != 1:
            raise PellucidError(
                f"a steering vector has one dimension, and this has shape {list(vector.shape)}\n  hint: choose one prompt and position of "
                "it, as in `value[0, -1]`"
            )
        self.hook, self.vector, self.scale = hook, vector.float(), float(scale)
        self.positions, self.prompt, self.generated = positions, prompt, generated

    def apply(self, tracer: Any) -> None:
        """Steers the invoke that is open, in a trace or at every step of a generation."""
        recorder = tracer._recorder
        model = tracer._model
        added = self.vector * self.scale
        from ._lens import _assign

        if self.prompt:
            value = model[self.hook]
            if self.positions is None:
                _assign(model, self.hook, value + added)
            else:
                value[:, self.positions] = value[:, self.positions] + added
        if self.generated and tracer._generate is not None and tracer._generate["max_new_tokens"] > 1:
            before, recorder.step = recorder.step, None
            with tracer.iter[1:]:
                _assign(model, self.hook, model[self.hook] + added)
            recorder.step = before

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as a safetensors file, which the Rust library reads too."""
        positions = None if self.positions is None else [self.positions.start, self.positions.stop]
        definition = {
            "hook": self.hook, "scale": self.scale, "positions": positions, "prompt": self.prompt, "generated": self.generated,
        }
        data = bytes(self.vector._here("it is written to a file").data())
        header = json.dumps({
            "__metadata__": {_METADATA: json.dumps(definition)},
            _VECTOR: {"dtype": "F32", "shape": list(self.vector.shape), "data_offsets": [0, len(data)]},
        }).encode()
        header += b" " * (-len(header) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header + data)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Steering:
        """Reads what `save` wrote."""

        def damaged(reason: str) -> PellucidError:
            return PellucidError(f"{path} is not a steering vector: {reason}\n  hint: `Steering.save` writes such files")

        with open(path, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 0 < length <= _MAXIMUM_HEADER:
                raise damaged("it is no safetensors file")
            try:
                header = json.loads(file.read(length))
                definition = json.loads(header["__metadata__"][_METADATA])
                about = header[_VECTOR]
                begin, end = about["data_offsets"]
                shape = [int(size) for size in about["shape"]]
            except (KeyError, TypeError, ValueError) as error:
                raise damaged(f"{type(error).__name__}: {error}") from None
            if about["dtype"] != "F32" or len(shape) != 1 or end - begin != 4 * shape[0] or begin != 0:
                raise damaged("its vector is not one of f32")
            data = file.read(end)
        if len(data) != end:
            raise damaged("it was cut off")
        positions = definition.get("positions")
        return Steering(
            definition["hook"], Tensor._computed(Core.from_data(data, shape, "f32")), definition.get("scale", 1.0),
            None if positions is None else slice(*positions), definition.get("prompt", True), definition.get("generated", True),
        )

    def __repr__(self) -> str:
        return f"Steering({self.hook!r}, {list(self.vector.shape)}, scale={self.scale})"
