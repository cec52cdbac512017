"""Bodies of a program that are being written: of traces, sweeps, loops, steps, branches."""

from __future__ import annotations

from typing import Any, Iterator


class EarlyStop(Exception):
    """Ends the writing of a trace: what `tracer.stop()` raises, and the trace's end catches."""


class Scope:
    """A body that is being written."""

    __slots__ = ("kind", "node", "body", "parent", "trace", "hooks", "saves", "caches", "touched", "parameters", "read", "replaced", "perhaps", "model")

    def __init__(self, kind: str, node: dict[str, Any] | None, body: list[Any], parent: Scope | None):
        #: `session`, `trace`, `steps`, `sweep`, `loop`, `branch` or `edit`.
        self.kind: str = kind
        self.node: dict[str, Any] | None = node
        self.body: list[Any] = body
        self.parent: Scope | None = parent
        #: The trace that it is, or stands in.
        self.trace: dict[str, Any] | None = node if kind == "trace" else parent.trace if parent else None
        #: The model whose modules are meant in it; of a session's own body the session's.
        self.model: Any = parent.model if parent else None
        #: Values of hook points that were read in this body: what is changed in place is changed for all who read it.
        self.hooks: dict[Any, Any] = {}
        #: Saved tensors, with name and line: the nodes are written at the end, when in-place changes are done.
        self.saves: list[tuple[Any, Any, dict[str, Any]]] = []
        #: Nodes that cache what this body ends with.
        self.caches: list[dict[str, Any]] = []
        #: Values from outside of this body that were read anew or changed in it: to be read anew after it.
        self.touched: list[Any] = []
        #: Identities of all values from outside that it uses; of views those of what they are views of.
        self.read: set[int] = set()
        #: Names of what the body is given: parameters of a sweep or loop, carried values.
        self.parameters: set[str] = set()
        #: What was read outside of this body of hook points that were given another value in it.
        self.replaced: dict[Any, Any] = {}
        #: The same of branches in it: these are the hook point's own still, if the branch did not run.
        self.perhaps: dict[Any, list[Any]] = {}

    def branches(self) -> Iterator[Scope]:
        """It and the bodies around it, up to the first that is no branch: what was read in them is the same in it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent if scope.kind == "branch" else None
