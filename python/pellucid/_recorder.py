"""The program while it is being written: its nodes, in the JSON form in which programs travel."""

from __future__ import annotations

import json
import re
import sys
from contextvars import ContextVar
from typing import Any, Callable, Iterator

from . import _core, _types, _writer
from ._errors import Fault, NotComputedError
from ._given import Given
from ._lines import Site, author, here, site, source
from ._saving import hold, why_absent
from ._scope import EarlyStop, Scope
from ._writer import _LITERAL, Writer, core_of, number

#: The program that is being recorded here, in this thread or task.
recording: ContextVar[Recorder | None] = ContextVar("pellucid_recording", default=None)
_writer._recording = recording


class Recorder(Writer):
    """One program: a session, or a lone trace."""

    __slots__ = (
        "model", "root", "scope", "counts", "names", "constants", "core_names", "lead", "seed", "state",
        "saved", "prefix", "invoke", "step", "backward", "edits", "faults", "results", "models", "caches", "steps_of",
        "parameters", "job", "nodes", "known", "kinds", "traces", "dropped", "detached",
        "reserved", "given", "holders", "sites", "perhaps", "ways", "asked", "weights_set",
    )

    def __init__(self, model: Any, seed: int = 0, prefix: str = ""):
        self.model: Any = model
        #: What the names of all nodes begin with: an edit's own, so that they stay unique where it is used.
        self.prefix: str = prefix
        self.root: Scope = Scope("session", None, [], None)
        self.root.model = model
        self.scope: Scope = self.root
        self.counts: dict[str, int] = {}
        self.names: set[str] = set()
        self.constants: dict[str, _core.Tensor] = {}
        self.core_names: dict[int, str] = {}
        #: What it was given by Python, and where that came from.
        self.given: Given = Given()
        #: How many nodes at the beginning hold constants and edits.
        self.lead: int = 0
        self.seed: int = seed
        #: `open` while it is written, then `done`, `failed` or `abandoned`.
        self.state: str = "open"
        self.saved: list[tuple[Any, str]] = []
        #: Lists and the like of which all tensors are saved, also those that come into them later, with the places that say so.
        self.holders: list[tuple[Any, Site, dict[str, Any]]] = []
        #: How often each place has saved something.
        self.sites: dict[Any, int] = {}
        #: Of saved values that may be absent: why.
        self.perhaps: dict[str, str] = {}
        #: The invoke that hook points are of; none: no invoke is open.
        self.invoke: str | None = None
        #: The step of a generation that hook points are of; none: the body's own.
        self.step: int | None = None
        #: The way back whose gradients `.grad` is.
        self.backward: str | None = None
        #: Ways back by name, with the bodies that they stand in; and those of which a gradient was asked for.
        self.ways: dict[str, Scope] = {}
        self.asked: set[str] = set()
        #: Parameters that are set, with the invokes that they are set for.
        self.weights_set: set[Any] = set()
        self.edits: dict[int, str] = {}
        self.faults: list[Fault] = []
        self.results: Any = None
        #: Where it was submitted to, to go on by itself.
        self.job: Any = None
        #: Models beside the program's own, by name.
        self.models: dict[str, Any] = {}
        self.caches: list[tuple[Any, str]] = []
        self.steps_of: dict[str, int] = {}
        #: Names of parameters of sweeps and loops: as an index of modules they stand for their numbers.
        self.parameters: set[str] = set()
        #: Names of all that bodies were given, these too.
        self.reserved: set[str] = set()
        #: Nodes that have values, by name; and what is known of their types: see `_types`.
        self.nodes: dict[str, dict[str, Any]] = {}
        self.known: dict[str, Any] = {}
        self.kinds: dict[str, str | None] = {}
        #: Of hook points that are read in a trace's own body: the trace.
        self.traces: dict[str, dict[str, Any]] = {}
        #: Names of what was written in blocks that an exception left.
        self.dropped: set[str] = set()
        #: Traces in which a value was changed through `detach`.
        self.detached: list[Any] = []

    # Nodes

    def name(self, op: str) -> str:
        number = self.counts.get(op, 0)
        self.counts[op] = number + 1
        name = f"{self.prefix}{op}_{number}"
        return self.name(op) if name in self.names or name in self.reserved else name

    def parameter(self, wanted: str) -> str:
        """A name for what a body is given: as wanted, unless that is the name of something else that is known there."""
        name, count = wanted, 1
        while self.named(name) or any(name in scope.parameters for scope in self.scopes()):
            count += 1
            name = f"{wanted}_{count}"
        self.reserved.add(name)
        return name

    def scopes(self) -> Iterator[Scope]:
        """The body that is being written, and those around it."""
        scope: Scope | None = self.scope
        while scope is not None:
            yield scope
            scope = scope.parent

    def node(self, op: str, fields: dict[str, Any]) -> str:
        """Writes a node at the end of the body that is being written, and gives its name."""
        if self.state != "open":
            self.closed()
        name = self.name(op)
        node = {"op": op, "name": name, **fields, "source": source()}
        self.nodes[name] = node
        self.scope.body.append(node)
        return name

    def plain(self, op: str, fields: dict[str, Any]) -> None:
        """Writes a node that has no value."""
        if self.state != "open":
            self.closed()
        # An edit's are told by their names from those of the traces that it is in.
        named = {"name": self.name(op)} if self.prefix else {}
        self.scope.body.append({"op": op, **named, **fields, "source": source()})

    def one(self, op: str, fields: dict[str, Any]) -> Any:
        """Writes a node that has one value. The fields become the node: what else they are used for takes a copy."""
        if self.state != "open":
            self.closed()
        name = self.name(op)
        fields["op"] = op
        fields["name"] = name
        fields["source"] = source()
        self.nodes[name] = fields
        self.scope.body.append(fields)
        return _writer._tensor._recorded(self, name)

    def many(self, op: str, fields: dict[str, Any], count: int | None = None) -> list[Any]:
        name = self.node(op, fields)
        if count is None:
            count = len(_types.outputs(self, name))
        make = _writer._tensor._recorded
        return [make(self, name if k == 0 else f"{name}.{k}") for k in range(count)]

    def closed(self) -> None:
        raise NotComputedError(
            "the trace is over, and nothing can be added to it\n  hint: results can be used as they are; to go on from "
            "values inside the engine, write both traces in one `with model.session():`"
        )

    # Values

    def tensor(self, value: Any) -> str:
        if type(value) is _writer._tensor and value._core is None:
            return value._reference(self)
        return self.constant(self.given.core(value))

    def constant(self, core: _core.Tensor) -> str:
        """The name under which a tensor that is there already stands in the program: once, at its beginning."""
        name = self.core_names.get(id(core))
        if name is not None:
            return name
        self.given.used(core)
        shape = list(core.shape)
        count = 1
        for size in shape:
            count *= size
        if count <= _LITERAL:
            name = self.name("literal")
            from ._arrays import to_numpy

            elements = [number(item) for item in to_numpy(core).reshape(-1).tolist()]
            node: dict[str, Any] = {"op": "literal", "name": name, "dtype": core.dtype, "shape": shape, "elements": elements}
        else:
            name = self.name("constant")
            node = {"op": "constant", "name": name, "key": name}
        # Held whatever its size, so that no other tensor takes its place in memory.
        self.constants[name] = core
        self.core_names[id(core)] = name
        node["source"] = source()
        self.root.body.insert(self.lead, node)
        self.nodes[name], self.known[name], self.kinds[name] = node, (core.dtype, shape), core.dtype
        self.lead += 1
        return name

    def literal(self, value: Any) -> str:
        """A tensor without dimensions for a number, where programs take only tensors."""
        return self.constant(core_of(_writer.as_tensor(value)))

    # Bodies

    def open(self, kind: str, node: dict[str, Any], body: list[Any] | None = None) -> Scope:
        """Writes a node that owns a body, and begins to write that body."""
        if self.state != "open":
            self.closed()
        owned: list[Any] = node["body"] if body is None else body
        if body is None:
            self.scope.body.append(node)
        scope = Scope(kind, node, owned, self.scope)
        self.scope = scope
        return scope

    def close(self, scope: Scope) -> None:
        """Ends the body that is being written."""
        self.flush(scope)
        if scope.parent is not None:
            self.scope = scope.parent
        self._forget(scope)

    def leave(self, scope: Scope, kind: type[BaseException] | None) -> bool:
        """Ends a body, or drops it where an exception leaves it: whether it is there."""
        if kind is None or issubclass(kind, EarlyStop):
            self.close(scope)
            return True
        self.drop(scope)
        return False

    def drop(self, scope: Scope) -> None:
        """Takes back a body that an exception leaves, with the node that owns it: whoever catches it goes on without."""
        while True:
            inner = self.scope
            inner.body += inner.caches
            self._forget(inner)
            for tensor, _, _ in inner.saves:
                tensor._note = _LEFT
            if inner.parent is not None:
                self.scope = inner.parent
            if inner is scope or inner.parent is None:
                break
        node: Any = scope.node
        if scope.kind == "branch" and "else" in node and scope.body is node["else"]["body"]:
            written = node.pop("else")
        else:
            written = node
            self.scope.body[:] = [each for each in self.scope.body if each is not node]
        names = set(_names(written))
        self.dropped |= names
        self.names -= names
        for tensor, name in self.saved:
            if name in names:
                tensor._note = _LEFT
        self.saved = [each for each in self.saved if each[1] not in names]
        for cache, name in self.caches:
            if name in names:
                cache._note = _LEFT
        self.caches = [each for each in self.caches if each[1] not in names]

    @staticmethod
    def _forget(scope: Scope) -> None:
        """Values from outside of a body that were read anew or changed in it are read anew after it."""
        parent = scope.parent
        for tensor in scope.touched:
            if tensor._base is not None:
                tensor._seen = -1
            elif tensor._of_hook is not None and tensor._of_hook.again is not None:
                tensor._ref, tensor._written = "", parent
                tensor._version += 1
                tensor._of_hook.leave(tensor)
                if parent is not None and parent is not tensor._scope:
                    parent.touched.append(tensor)
        if parent is None or scope.kind == "trace":
            return
        parent.read |= scope.read
        if scope.kind == "branch":
            for key, tensor in scope.replaced.items():
                parent.perhaps.setdefault(key, []).append(tensor)
        for key, tensors in scope.perhaps.items():
            parent.perhaps.setdefault(key, []).extend(tensors)

    def at(self, scope: Scope, write: Callable[[Recorder], str]) -> str:
        """Writes a node at the end of an outer body: before the one that is being written in it."""
        inner = child = self.scope
        while child is not scope and child.parent is not None and child.parent is not scope:
            child = child.parent
        if child is scope or child.parent is None:
            return write(self)
        self.scope = scope
        try:
            name = write(self)
        finally:
            self.scope = inner
        node = scope.body.pop()
        scope.body.insert(next(place for place, each in enumerate(scope.body) if each is child.node), node)
        return name

    def flush(self, scope: Scope) -> None:
        """Writes what stands at the end of a body: what is kept of it, as it is after all changes in place."""
        scope.body += scope.caches
        scope.caches = []
        if self.holders:
            hold(self, scope)
        if self.ways:
            from ._gradients import for_torch

            for_torch(self, scope)
        for tensor, name, line in scope.saves:
            chosen = self.save_name(name)
            scope.body.append({"op": "save", "name": chosen, "value": tensor._reference(self), "source": line})
            self.saved.append((tensor, chosen))
            reason = why_absent(scope)
            if reason:
                self.perhaps[chosen] = reason
        scope.saves = []

    def inside(self, kind: str) -> bool:
        return any(scope.kind == kind for scope in self.scopes())

    def save(self, tensor: Any, name: str | None) -> None:
        """Keeps a value when the body ends that is being written. Without a name it is called as the variable that it goes into."""
        frame = author(sys._getframe(2))
        self.scope.saves.append((tensor, self.into(site(frame)) if name is None else name, here(frame)))

    def hold(self, holder: Any) -> None:
        """Keeps all tensors in a list or the like, each when the body ends that it was made in."""
        frame = author(sys._getframe(2))
        self.holders.append((holder, site(frame), here(frame)))

    def into(self, site: Site) -> Site:
        """The variable that the next value goes into which a place saves."""
        count = self.sites[site.place] = self.sites.get(site.place, -1) + 1
        return Site(site.place, (site.names[count % len(site.names)],) if site.names else ())

    def save_name(self, wanted: str | Site) -> str:
        """The name of a result: the author's, else that of the variable it goes into."""
        if isinstance(wanted, str):
            if not re.fullmatch(r"\w+", wanted, re.ASCII):
                raise ValueError(f"a name is made of letters, digits and `_`, not {wanted!r}")
            if wanted in self.reserved:
                raise ValueError(
                    f"`{wanted}` is the name of a parameter or carried value of a sweep or loop\n  hint: save it under another name"
                )
            if self.taken(wanted):
                raise ValueError(f"two values are saved as `{wanted}`")
            self.names.add(wanted)
            return wanted
        # No variable is called `2_h`, so it cannot be taken for one.
        base = wanted.names[0] if wanted.names else "saved"
        name, count = base, 1
        while self.taken(name):
            count += 1
            name = f"{count}_{base}"
        self.names.add(name)
        return name

    def taken(self, name: str) -> bool:
        """Whether something in the program is called so already."""
        return name in self.reserved or self.named(name)

    def named(self, name: str) -> bool:
        """Whether a node is called so already."""
        op, _, number = name.rpartition("_")
        return name in self.names or number.isdigit() and int(number) < self.counts.get(op, 0)

    # The program

    def program(self, extra: dict[str, Any] | None = None) -> _core.Program:
        """The program as it is now. With `extra`, a node that is added where writing goes on."""
        body = self.root.body
        if extra is not None:
            self.scope.body.append(extra)
        try:
            whole = {"pellucid": 1, "seed": self.seed, "body": body}
            text = json.dumps(whole)
        finally:
            if extra is not None:
                self.scope.body.pop()
        return _core.Program(text, self.held())

    def held(self) -> dict[str, _core.Tensor]:
        return {name: core for name, core in self.constants.items() if "constant_" in name}


#: What is said of values that were written in a block that an exception left.
_LEFT = (
    "it was written in a block that an exception left, and so is no part of the program\n  hint: let the exception end the trace, or write "
    "it where nothing fails"
)


def _names(node: Any) -> Iterator[str]:
    """Names of a node and of all in it."""
    if isinstance(node, list):
        for each in node:
            yield from _names(each)
    elif isinstance(node, dict):
        if "op" in node and "name" in node:
            yield node["name"]
        for key in ("body", "then", "else"):
            if key in node:
                yield from _names(node[key])
