"""Steering vectors: made once, kept in files, applied to traces."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ._errors import PellucidError
from ._steps import StepsOf
from ._tensor import Tensor
from ._safetensors import read, written

if TYPE_CHECKING:
    from ._model import Model
    from ._trace import Trace

_METADATA = "pellucid.steering"
_VECTOR = "vector"


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
        self.hook: str = hook
        self.vector: Tensor = vector.float()
        self.scale: float = float(scale)
        self.positions: slice | None = positions
        self.prompt: bool = prompt
        self.generated: bool = generated

    def apply(self, where: Model | Trace) -> None:
        """Steers the invoke that is open, in a trace or at every step of a generation, or the model that is edited: `where` is the tracer, or the
        model. In a loop over steps it steers the step that is being written."""
        from ._invokes import current
        from ._trace import Trace

        recorder = current("a steering vector is applied")
        model: Any = where._model if isinstance(where, Trace) else where
        if recorder.inside("edit") or recorder.inside("steps"):
            if not (self.positions is None and self.prompt and self.generated):
                raise PellucidError(
                    "an edit, and a body of all steps, is of every token, and this vector is for some\n  hint: apply it in the trace itself, "
                    "outside of bodies of steps"
                )
            self._everywhere(model)
            return
        step = recorder.step
        if self.prompt and not step:
            if self.positions is None:
                self._everywhere(model)
            else:
                value = model[self.hook]
                value[:, self.positions] = value[:, self.positions] + self.vector * self.scale
        if not self.generated:
            return
        if step:
            self._everywhere(model)
        generate = (recorder.scope.trace or {}).get("generate", {})
        if step is None and generate.get("max_new_tokens", 1) > 1:
            with StepsOf(recorder, recorder.scope.trace or {}, slice(1, None)):
                self._everywhere(model)

    def _everywhere(self, model: Any) -> None:
        from ._lens import _assign

        _assign(model, self.hook, model[self.hook] + self.vector * self.scale)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as a safetensors file, which the Rust library reads too."""
        positions = None if self.positions is None else [self.positions.start, self.positions.stop]
        definition = {
            "hook": self.hook, "scale": self.scale, "positions": positions, "prompt": self.prompt, "generated": self.generated,
        }
        vector = self.vector._here("it is written to a file")
        with open(path, "wb") as file:
            file.write(written({_VECTOR: vector}, {_METADATA: json.dumps(definition)}))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Steering:
        """Reads what `save` wrote."""

        def damaged(reason: str) -> PellucidError:
            return PellucidError(f"{path} is not a steering vector: {reason}\n  hint: `Steering.save` writes such files")

        try:
            _, tensors, metadata = read(path)
        except PellucidError as error:
            raise damaged(str(error).splitlines()[0]) from None
        try:
            definition, vector = json.loads(metadata[_METADATA]), tensors[_VECTOR]
            hook = definition["hook"]
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(f"{type(error).__name__}: {error}") from None
        if vector.dtype != "f32" or len(vector.shape) != 1:
            raise damaged("its vector is not one of f32")
        positions = definition.get("positions")
        return Steering(
            hook, Tensor._computed(vector), definition.get("scale", 1.0),
            None if positions is None else slice(*positions), definition.get("prompt", True), definition.get("generated", True),
        )

    def __repr__(self) -> str:
        return f"Steering({self.hook!r}, {list(self.vector.shape)}, scale={self.scale})"
