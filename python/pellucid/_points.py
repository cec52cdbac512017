"""Where tensors are read from and written to: hook points and parameters of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import NotComputedError
from ._recorder import Recorder
from ._tensor import Tensor

if TYPE_CHECKING:
    from ._model import Model

#: Classes of transformers that gave a tuple before its version 5, of which `.output[0]` was the tensor.
_TUPLES = ("Block", "Layer", "Attention", "SdpaAttention")


class HookOrigin:
    """Where a tensor was read: writing it in place writes there."""

    __slots__ = ("model", "path", "fields", "key", "invoke")

    def __init__(self, model: Model, path: str, fields: dict[str, Any], key: Any):
        self.model, self.path, self.fields, self.key = model, path, fields, key

    def write(self, recorder: Recorder, ref: str) -> None:
        scope = recorder.scope
        others: list[Tensor] = []
        read: set[int] = set()
        in_turn = False
        for outer in recorder.scopes():
            other = outer.hooks.get(self.key)
            if other is not None and other._of_hook is not self:
                if in_turn and id(other) in read:
                    raise NotComputedError(
                        f"`{self.path}` is changed in a body that runs more than once, and used in it under a name from outside, which would be "
                        "something else in the next turn\n  hint: read it inside; or take a `.clone()` before, of the value as it is there"
                    )
                others.append(other)
            for old in outer.perhaps.pop(self.key, ()):
                # If that branch did not run, it is what is changed here.
                old._of_hook, old._ref = Replaced, ""
                old._version += 1
            in_turn = in_turn or outer.kind in ("steps", "sweep", "loop")
            read |= outer.read
            if outer.kind == "trace":
                break
        recorder.plain("set", {**self.fields, "value": ref})
        for other in others:
            # It was read outside of this body already: it is this, too.
            scope.touched.append(other)
            if scope.kind != "steps":
                other._ref, other._written = "", scope
                other._version += 1

    def again(self, recorder: Recorder) -> str:
        return recorder.node("get", self.fields)

    def leave(self, tensor: Tensor) -> None:
        """What becomes of it at the end of a body that changed it: where it was replaced there as well, it is not known what it is."""
        if tensor._write_to != self.write:
            tensor._of_hook = Replaced

    def of_tuple(self, tensor: Tensor, index: Any) -> Any:
        """What `.output[0]` and `.output[1:]` mean where older versions of transformers gave a tuple; none: what they say."""
        module, _, name = self.path.rpartition(".")
        kind = self.model._tree.modules.get(self.model._tree.target(module), "")
        if name not in ("output", "input") or not kind.endswith(_TUPLES):
            return None
        from ._compat import tuples

        if tuples():
            # Of the tuple only its first member is here.
            return tensor if type(index) is int else (tensor,)[index]
        if name == "output" and index == 0:
            tensor._warn_of_tuple()
        return None


class PatternOrigin:
    """The pattern whose hook points a tensor is a stack of: it cannot be changed in place."""

    __slots__ = ("path",)

    #: It is never read anew.
    again = None

    def __init__(self, path: str):
        self.path = path

    def write(self, recorder: Recorder, ref: str) -> None:
        raise NotComputedError(
            f"`{self.path}` gives a stack of many hook points, and changing it in place would change none of them\n  hint: `tracer.set(\"{self.path}\", "
            "value)` writes one value to all, with `each=True` row k to the k-th; or change them one by one, `for layer in model.layers: "
            "layer.output *= 0.5`; a `.clone()` is a tensor of its own"
        )

    def of_tuple(self, tensor: Tensor, index: Any) -> Any:
        return None


class WeightOrigin:
    """The parameter that a tensor was read from: writing it in place sets it, for the invoke that is open."""

    __slots__ = ("path", "key")

    #: It is never read anew: a parameter that is read is the model's own, whatever was set.
    again = None

    def __init__(self, path: str, key: Any = None):
        #: Its path as it was named; and the invoke that was open when it was read, with its path under transformers' names.
        self.path, self.key = path, key

    def write(self, recorder: Recorder | None, ref: str) -> None:
        if recorder is None:
            raise NotComputedError(
                f"`{self.path}` is the model's own, and stays as it is\n  hint: inside of a trace writing to it sets it for that input, and in "
                "`with model.edit() as edited:` for all traces of `edited`; `.clone()` is a tensor of your own"
            )
        set_parameter(recorder, self.path, ref, self.key)

    def follow(self, recorder: Recorder, ref: str) -> None:
        """A gradient is asked of a parameter as it was read: the invoke runs with that value, and so it is on the way back; unless it runs with
        another, of which it is a part or not."""
        _, invoke, path = self.key
        elsewhere = any(node["op"] == "edit" and any(each["op"] == "set_weight" for each in node["body"]) for node in recorder.root.body)
        if invoke is not None and "{" not in path and self.key not in recorder.weights_set and not elsewhere:
            recorder.weights_set.add(self.key)
            recorder.plain("set_weight", {**({"invoke": invoke} if invoke else {}), "parameter": path, "value": ref})

    def of_tuple(self, tensor: Tensor, index: Any) -> None:
        return None


def meant(recorder: Recorder, model: Model, what: str) -> None:
    """Refuses what is of another model than the one whose modules are meant here: by its path it would be that one's. An edited model has what it was
    made of."""
    here: Model = recorder.scope.model
    if model is here:
        return
    same = model._core is here._core
    if same and all(any(edit is each for each in here._edits) for edit in model._edits):
        return
    theirs, mine = (f"`{each.name}`{' with edits' if each._edits else ''}" for each in (model, here))
    if theirs == mine:
        theirs = f"a model edited otherwise, {theirs}" if same else f"another model that is called {theirs}"
    place = "trace" if recorder.scope.trace is not None else "session"
    hint = "open the trace on it, `with other.trace(prompt):`; values flow between the traces of two models in one `with model.session():`"
    if same:
        hint = "open the trace on it, `with edited.trace(prompt):`, where the plain model's modules are the edited ones, too"
    raise NotComputedError(f"{what} is of {theirs}, and this {place} is of {mine}\n  hint: {hint}")


def set_parameter(recorder: Recorder, path: str, ref: str, key: Any) -> None:
    from ._invokes import _invoke_field

    recorder.weights_set.add(("weight", recorder.invoke, key[2]))
    recorder.plain("set_weight", {**_invoke_field(recorder, f"the parameter `{path}` is set"), "parameter": path, "value": ref})


def hook_value(model: Model, module: str, name: str) -> Tensor:
    """A hook point's value: the same tensor for all who read it in one body, as long as nobody replaces it."""
    from ._invokes import _address, current

    path = f"{module}.{name}" if module else name
    recorder = current(f"`{path}` is used")
    meant(recorder, model, f"`{path}`")
    fields = _address(recorder, path)
    key = (recorder.invoke, model._tree.hook(path), fields.get("step"))
    known = read_before(recorder, key)
    if known is not None:
        return known
    tensor = recorder.one("get", dict(fields))
    if recorder.scope.kind == "trace" and recorder.scope.trace is not None:
        recorder.traces[tensor._ref] = recorder.scope.trace
    origin = HookOrigin(model, path, fields, key)
    tensor._of_hook = origin
    tensor._write_to = origin.write
    recorder.scope.hooks[key] = tensor
    return tensor


def read_before(recorder: Recorder, key: Any) -> Tensor | None:
    """What was read from a place already, in this body or before the condition that it is in."""
    return next((known for scope in recorder.scope.branches() if (known := scope.hooks.get(key)) is not None), None)


def set_hook(model: Model, module: str, name: str, value: Any) -> None:
    from ._invokes import _address, current

    path = f"{module}.{name}" if module else name
    recorder = current(f"`{path}` is set")
    meant(recorder, model, f"`{path}`")
    value = first_of(value)
    fields = _address(recorder, path)
    key = (recorder.invoke, model._tree.hook(path), fields.get("step"))
    known = recorder.scope.hooks.get(key)
    if known is value and known is not None:
        return  # `module.output *= 2`: it has been written already
    ref = recorder.literal(value) if isinstance(value, (int, float)) else recorder.tensor(value)
    olds = []
    for scope in recorder.scopes():
        old = scope.hooks.pop(key, None)
        if old is not None:
            olds.append(old)
        if scope.kind == "trace":
            break
    alone = all(old._scope is recorder.scope for old in olds) and not any(key in scope.perhaps for scope in recorder.scopes())
    for old in olds:
        # It is no longer what flows on: a tensor of its own from now on, with the value that it has.
        old._reference(recorder)
        old._write_to = None if alone else _refuse_replaced
        for inner in recorder.scopes():
            if inner is old._scope:
                break
            inner.replaced[key] = old
    recorder.plain("set", {**fields, "value": ref})


def _refuse_replaced(recorder: Recorder, ref: str = "") -> str:
    raise NotComputedError(
        "its hook point was given another value inside of a block, so whether it is still that hook point depends on the block\n  hint: read the "
        "hook point anew after the block, or take a `.clone()` before it"
    )


class Replaced:
    """Where a tensor was read whose hook point was given another value inside of a branch that had changed it before: it is neither."""

    again = staticmethod(_refuse_replaced)
    path = ""

    @staticmethod
    def leave(tensor: Tensor) -> None:
        pass

    @staticmethod
    def of_tuple(tensor: Tensor, index: Any) -> None:
        return None


def first_of(value: Any) -> Any:
    """The first of a tuple, as older versions of transformers gave it."""
    return value[0] if isinstance(value, tuple) and value else value
