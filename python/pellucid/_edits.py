"""Edits of a model: written once, used by every trace of the edited model."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from ._errors import NotComputedError
from ._recorder import Recorder, recording, source

if TYPE_CHECKING:
    from ._model import Model

#: Names of edits are unique in a process, so that those of any two models can stand in one program.
_numbers = itertools.count(1)


class Edits:
    """A stack of edits, as nodes of a program."""

    def __init__(self, name: str, recorder: Recorder):
        self.name, self.nodes, self.constants = name, recorder.root.body, recorder.held()
        #: What its constants are called, and those that are torch's own and ask for gradients.
        self.core_names, self.waiting = recorder.core_names, recorder.given.waiting()


class Edit:
    """The writing of a stack of edits."""

    def __init__(self, model: Model, inplace: bool):
        self._model, self._inplace = model, inplace
        self._token: Any = None

    def __enter__(self) -> Model:
        if recording.get() is not None:
            raise NotComputedError("a model is edited outside of traces: `with model.edit() as edited:`, then `edited.trace(...)`")
        name = f"edit_{next(_numbers)}"
        recorder = Recorder(self._model, prefix=f"{name}_")
        node = {"op": "edit", "name": name, "body": [], "source": source()}
        self._recorder, self._name = recorder, name
        self._scope = recorder.open("edit", node)
        self._scope.trace = node
        recorder.invoke = ""
        self._token = recording.set(recorder)
        self._edited = self._model if self._inplace else self._model._copy()
        return self._edited

    def __exit__(self, kind: Any, *_: Any) -> None:
        recording.reset(self._token)
        recorder = self._recorder
        recorder.state = "abandoned" if kind is not None else "done"
        if kind is not None:
            return
        if self._scope.saves:
            raise NotComputedError("nothing can be saved in an edit\n  hint: save in the traces of the edited model")
        self._edited._edits.append(Edits(self._name, recorder))
