"""Tensors that are changed in place, and views of them.

A program has no variables: every value is computed once. What Python changes in place is a name for one value after another. A tensor that
was read from a hook point is that hook point's: changing it writes a setter. A view knows what it is a view of: changing it changes
that, and what was changed is seen through all its views.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from . import _dtype, _operations, _types, _writer
from ._core import Tensor as Core
from ._errors import NotComputedError, ProgramError
from ._numbers import Numbers
from ._writer import as_tensor

if TYPE_CHECKING:
    from ._recorder import Recorder
    from ._tensor import Tensor

#: Views by which elements only stand elsewhere in the shape.
_RESHAPED = frozenset(("reshape", "flatten", "unflatten", "squeeze"))
#: Bodies that run more than once, or not at all.
_INSIDE = {"steps": "a body of steps", "sweep": "a sweep", "loop": "a loop", "branch": "a branch"}


class InPlace(Numbers):
    """Changing tensors in place, and what is a view of what."""

    __slots__ = ()

    if TYPE_CHECKING:
        _base: Tensor | None
        _view: Any
        _version: int
        _seen: int
        _views: Any
        _write_to: Any
        _scope: Any
        _written: Any
        _of_hook: Any

        def _open(self) -> Recorder: ...

    def _root(self) -> Tensor:
        tensor: Any = self
        while tensor._base is not None:
            tensor = tensor._base
        return tensor

    def _viewed(self, new: Tensor, op: str, fields: dict[str, Any] | None) -> Tensor:
        """Makes a value that was just computed a view of this one."""
        root = self._root()
        new._base, new._view, new._seen = self, (op, fields), root._version  # type: ignore[assignment]
        if self._core is not None:
            if root._views is None:
                root._views = WeakValueDictionary()
            root._views[id(new)] = new
        return new

    def _alias(self) -> Tensor:
        """The same value now, under a name of its own that later changes do not touch."""
        make = _writer._tensor
        if self._core is not None:
            return make._computed(self._core)
        recorder = self._open()
        return make._recorded(recorder, self._reference(recorder))

    def _write(self, new: Any) -> Tensor:
        """Makes it another value, and with it what it is a view of."""
        if self._core is not None:
            fresh = new if type(new) is _writer._tensor else as_tensor(new, self.dtype)
            if fresh._core is None:
                raise NotComputedError(
                    "a result of an earlier run cannot be changed to a value of a trace\n  hint: make a new one, `y = x + value`"
                )
            if fresh.dtype != self.dtype:
                _refuse_narrowing(self.dtype.short, fresh.dtype.short)
                fresh = fresh.to(self.dtype)
            self._put(fresh._core)
            return self  # type: ignore[return-value]
        recorder = self._open()
        if type(new) is _writer._tensor:
            ref = self._in_its_type(recorder, new._reference(recorder))
        else:
            ref = recorder.literal(new)
        self._changed(recorder, ref)
        return self  # type: ignore[return-value]

    # Results

    def _put(self, core: Core | None) -> None:
        """Changes a result, what it is a view of, and all other views of that."""
        root = self._root()
        if root is self:
            if self._write_to is not None:
                self._write_to(None, "")
            self._core = core
            self._version += 1
            for view in list((self._views or {}).values()):
                view._follow(self)
            return
        assert self._base is not None
        whole = self._put_back(self._base, _writer._tensor._computed(core))
        self._base._put(whole._core)

    def _follow(self, root: Tensor) -> None:
        """Takes the view of a result anew."""
        base = self._base
        if base is None or self._seen == root._version:
            return
        base._follow(root)
        op, fields = self._view
        writer = _writer.Eager()
        self._core = writer.one(op, {"input": writer.tensor(base), **fields})._core
        self._seen = root._version

    # Values of traces

    def _in_its_type(self, recorder: Recorder, ref: str) -> str:
        """A value in the number type of what it is written into: it stays what it was, as in torch."""
        root = self._root()
        try:
            mine = "f32" if root._write_to is not None else _types.dtype(recorder, root._reference(recorder))
            theirs = _types.dtype(recorder, ref)
        except ProgramError:
            return ref  # something is wrong before, which is told with all else
        if mine == theirs:
            return ref
        _refuse_narrowing(mine, theirs)
        return recorder.node("to", {"input": ref, "dtype": mine})

    def _changed(self, recorder: Recorder, ref: str) -> None:
        scope = recorder.scope
        if self._scope is not scope:
            # Of a value from outside; what it is after this body is found out when the body ends.
            scope.touched.append(self)
        if self._base is None:
            if self._scope is not scope:
                self._refuse_outside(recorder)
            if self._write_to is not None:
                self._write_to(recorder, ref)
            self._ref = ref
            self._version += 1
            if self._write_to is not None and self._of_hook.again:
                self._ref, self._written = "", scope
            return
        base, root = self._base, self._root()
        if self._view[0] == "detach":
            _refuse_gradients(recorder)
        whole = self._put_back(base, _writer._tensor._recorded(recorder, ref))
        base._changed(recorder, whole._reference(recorder))
        self._ref = ref
        self._seen = root._version

    def _refuse_outside(self, recorder: Recorder) -> None:
        """Refuses what would be something else in the next turn, or in another branch: a program's values do not change."""
        from_hook = self._write_to is not None and self._of_hook.again
        for scope in recorder.scopes():
            if scope is self._scope:
                return
            if scope.kind in ("steps", "sweep", "loop") or scope.kind == "branch" and not from_hook:
                message = f"a value from outside is changed in place inside of {_INSIDE[scope.kind]}, and would be something else after it"
                hint = "make a new value (`y = x + 1`); to get one out of a branch use `tracer.cond(...).choose(a, b)`, out of a loop its carried values"
                if from_hook:
                    hint = "read it inside: `model.layers[2].output *= 2`"
                raise NotComputedError(f"{message}\n  hint: {hint}")

    def _put_back(self, base: Tensor, part: Tensor) -> Tensor:
        """What a base becomes when its view becomes `part`."""
        op, fields = self._view
        plain = base._alias()
        if op == "getitem":
            writer = _writer.writer(plain, part)
            return writer.one(
                "index_put",
                {"input": writer.tensor(plain), "index": fields["index"], "values": writer.tensor(part)},
            )
        if op == "detach":
            return part
        if op == "transpose":
            return _operations.transpose(part, fields["dim0"], fields["dim1"])
        if op == "permute":
            dims = [dim % len(fields["dims"]) for dim in fields["dims"]]
            return _operations.permute(part, sorted(range(len(dims)), key=dims.__getitem__))
        if op == "movedim":
            return _operations.movedim(part, fields["destination"], fields["source_"])
        if op == "unsqueeze":
            return _operations.squeeze(part, fields["dim"])
        if op in _RESHAPED:
            return _operations.reshape(part, tuple(plain.shape))
        if op == "expand" and part.numel() == plain.numel():
            return _operations.reshape(part, tuple(plain.shape))
        if op == "diagonal":
            return _on_diagonal(plain, part, **fields)
        raise NotComputedError(
            f"a view by `{op}` cannot be written through\n  hint: write to the tensor itself, by an index"
        )


def _on_diagonal(whole: Tensor, part: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    """A tensor with another diagonal."""
    count = int(part.shape[-1])
    places = _operations.arange(0, count)
    index = (places + max(0, -offset), places + max(0, offset))
    square = _operations.movedim(whole, [dim1, dim2], [0, 1])
    return _operations.movedim(_operations.index_put(square, index, _operations.movedim(part, -1, 0)), [0, 1], [dim1, dim2])


def _refuse_narrowing(mine: str, theirs: str) -> None:
    """Number types that torch does not write into one another: floats into whole numbers, anything into bools."""
    floats = ("f64", "f32", "bf16", "f16")
    if theirs in floats and mine not in floats or mine == "bool" and theirs != "bool":
        kept, given = _dtype.dtype(mine), _dtype.dtype(theirs)
        raise TypeError(
            f"in place a tensor of {kept} stays one, and cannot become {given}\n  hint: make a new value, `y = x * 0.5`, or begin with "
            f"`x.to(pl.{given})`"
        )


def _refuse_gradients(recorder: Recorder) -> None:
    """A gradient would have to go past what is written through `detach`, which a program cannot say."""
    trace = recorder.scope.trace
    if recorder.backward is not None:
        refuse_detached()
    if trace is not None and not any(each is trace for each in recorder.detached):
        recorder.detached.append(trace)


def refuse_detached() -> None:
    raise NotComputedError(
        "a value is changed through `.detach()` in a trace with a gradient, which would no longer go through that value\n  hint: write to "
        "the value itself, `h[:, -1] = v.detach()`, where the gradient ends at what is written"
    )
