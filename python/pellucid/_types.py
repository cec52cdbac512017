"""Types of values while a program is written: number type and sizes.

Asking the checker about a whole program costs its whole length. So what is known is kept; a value is asked about in a program of its own, of
nothing but what it was computed of since something known; and a number type that follows from those of the inputs is not asked about.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Iterator

from . import _core, _operations
from ._errors import ProgramError

if TYPE_CHECKING:
    from ._recorder import Recorder

#: A number type's short name, and sizes: `None` where one is not known before the run.
Type = tuple[str, "list[int | None]"]

#: Of how many nodes a value's own program is made before values on the way are asked about.
_MOST = 64

#: Operations whose value has the number type of the tensors in `input` and `other`, where these have one, and it is a float type.
_ALIKE = frozenset(
    "add sub mul div maximum minimum neg abs sign floor ceil round trunc clamp exp expm1 log log2 log1p sqrt rsqrt reciprocal sin cos tanh "
    "sigmoid erf relu gelu silu softplus where mean prod var std logsumexp cumsum cumprod softmax log_softmax matmul".split()
)
#: Operations whose value has the number type of `input`, whatever it is.
_KEPT = frozenset(
    "getitem index_put reshape flatten unflatten transpose permute movedim squeeze unsqueeze expand repeat flip roll tril triu diagonal "
    "detach amax amin index_select gather take_along_dim scatter masked_fill".split()
)
_BOOLS = frozenset("eq ne lt le gt ge logical_and logical_or logical_xor logical_not isnan isinf isfinite any all".split())
_PLACES = frozenset(("argmax", "argmin", "argsort"))
_FLOATS = frozenset(("f64", "f32", "bf16", "f16"))


def dtype(recorder: Recorder, reference: str) -> str:
    """The number type of a value."""
    return inferred(recorder, reference) or of(recorder, reference)[0]


def inferred(recorder: Recorder, reference: str) -> str | None:
    """The number type of a value, where it follows from what is known without asking."""
    known = recorder.kinds
    if reference in known:
        return known[reference]
    nodes = recorder.nodes
    waiting = [reference]
    while waiting:
        name = waiting[-1]
        node = nodes.get(name)
        inputs = [] if node is None else _inputs(node)
        missing = [each for each in inputs if each not in known]
        if missing:
            waiting += missing
            continue
        known[name] = None if node is None else _kind(node, [known[each] for each in inputs])
        waiting.pop()
    return known[reference]


def _inputs(node: dict[str, Any]) -> list[str]:
    """Names of the values whose number types decide."""
    op = node["op"]
    fields = ("input", "other") if op in _ALIKE else ("input",) if op in _KEPT else ()
    return [node[field] for field in fields if type(node.get(field)) is str]


def _kind(node: dict[str, Any], inputs: list[str | None]) -> str | None:
    op = node["op"]
    if op == "get":
        return "f32"
    if op in _BOOLS:
        return "bool"
    if op in _PLACES:
        return "i64"
    if "dtype" in node:
        return node["dtype"]
    if op in _KEPT:
        return inputs[0]
    if op in _ALIKE and inputs and inputs[0] in _FLOATS and inputs.count(inputs[0]) == len(inputs):
        return inputs[0]
    return None


def of(recorder: Recorder, reference: str) -> Type:
    """Number type and sizes of a value."""
    known = recorder.known.get(reference)
    if known is None:
        known = _asked(recorder, reference)
        recorder.known[reference] = known
        recorder.kinds[reference] = known[0]
    return known


def outputs(recorder: Recorder, name: str) -> list[Type]:
    """Those of all values of a node."""
    found = _in_part(recorder, name) or _in_whole(recorder, name)
    for place, each in enumerate(found):
        recorder.known[name if place == 0 else f"{name}.{place}"] = each
    return found


def _asked(recorder: Recorder, reference: str) -> Type:
    name, _, output = reference.partition(".")
    try:
        return outputs(recorder, name)[int(output or 0)]
    except ProgramError as error:
        # Values of loops, sweeps and conditions are no nodes of their own when these are written out: what reads them is.
        probe = {"op": "detach", "name": "what_reads_it", "input": reference}
        try:
            return _in_whole(recorder, "what_reads_it", probe)[0]
        except ProgramError:
            raise error from None


def _in_whole(recorder: Recorder, name: str, extra: dict[str, Any] | None = None) -> list[Type]:
    """Asks in the whole program. Inside of steps a size is known where it is the same at the first of them and at those that follow."""
    core = recorder.model._core_with(recorder.models)
    found = core.types_of(recorder.program(extra), name)
    node: Any = next((scope.node for scope in recorder.scopes() if scope.kind == "steps"), None)
    trace = recorder.scope.trace
    if node is None or trace is None:
        return found
    first = node.get("from", 0)
    later = first + node.get("every", 1)
    if later >= min(node.get("to", later + 1), trace.get("generate", {}).get("max_new_tokens", 1)):
        return found
    node["from"] = later
    try:
        others = core.types_of(recorder.program(extra), name)
    finally:
        node["from"] = first
    return [
        (kind, [size if size == there else None for size, there in zip(sizes, after)]) for (kind, sizes), (_, after) in zip(found, others)
    ]


def _in_part(recorder: Recorder, name: str) -> list[Type] | None:
    """Asks in a program of only what the value is computed of; none: it is not to be had so."""
    try:
        body = _part(recorder, name)
        if body is not None and len(body) > _MOST:
            # What lies on the way is asked about first, so that nothing is asked about twice.
            for node in body[_MOST - 1 : -1 : _MOST]:
                of(recorder, node["name"])
            body = _part(recorder, name)
    except ProgramError:
        return None  # it is the whole program's to say what is wrong
    if body is None:
        return None
    trace = recorder.traces.get(name)
    if trace is not None:
        kept = {key: trace[key] for key in ("op", "name", "model", "generate", "invokes") if key in trace}
        body = [{**kept, "body": body}]
    try:
        program = _core.Program(json.dumps({"pellucid": 1, "body": body}))
        return recorder.model._core_with(recorder.models).types_of(program, name)
    except ProgramError:
        return None


def _part(recorder: Recorder, wanted: str) -> list[dict[str, Any]] | None:
    """A body of what a value is computed of, from values whose types are known; none: there is more to it than operations."""
    body: list[dict[str, Any]] = []
    met: set[str] = set()
    waiting = [(wanted, False)]
    while waiting:
        name, ready = waiting.pop()
        if ready:
            body.append(recorder.nodes[name])
            continue
        if name in met:
            continue
        met.add(name)
        node = recorder.nodes.get(name)
        if node is None:
            return None
        if name != wanted:
            known = recorder.known.get(name) or (of(recorder, name) if name in recorder.traces else None)
            if known is not None and None not in known[1] and f"{name}.1" not in recorder.known:
                body.append({"op": "zeros", "name": name, "size": known[1], "dtype": known[0]})
                continue
        if not hasattr(_operations, node["op"]) and node["op"] != "literal" and not (name == wanted and name in recorder.traces):
            return None
        waiting.append((name, True))
        waiting += [(each, False) for each in inputs(recorder, node)]
    return body


def inputs(recorder: Recorder, node: dict[str, Any]) -> Iterator[str]:
    """Names of the nodes that a node mentions."""
    for field, value in node.items():
        if field not in ("op", "name", "source"):
            yield from _mentioned(value, recorder.nodes)


def _mentioned(value: Any, nodes: dict[str, Any]) -> Iterator[str]:
    """Names of nodes in a field."""
    if type(value) is str:
        name = value.partition(".")[0]
        if name in nodes:
            yield name
        return
    if type(value) is dict:
        value = value.values()
    if not isinstance(value, (str, int, float, type(None))):
        for each in value:
            yield from _mentioned(each, nodes)
