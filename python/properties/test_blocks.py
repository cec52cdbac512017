"""Names, views and changes in place across conditions and loops, held to Python and torch: random scripts over a hook point and what is
computed of it.

Each is run by torch at once, where conditions are `if` and loops are `for`, and recorded in a trace. What is refused may be refused, in the
two ways that the guide names; what is not must be the same.
"""

from __future__ import annotations

import os
import random

import numpy as np
import pellucid as pl
import pytest
import torch

MODEL = pl.Model("bundled")
PROMPT = "The Eiffel Tower is in the city of"
REFUSED = ("changed in place inside", "another value inside of a block", "in a body that runs more than once")

VIEWS = [lambda x: x[..., :3], lambda x: x.transpose(-1, -2), lambda x: x[0:1], lambda x: x.detach()]


def script(rng, depth=0):
    """Lines, some with lines of their own; numbers choose names among those that are known by then."""
    lines = []
    for _ in range(rng.randint(2, 5)):
        kind, which = rng.random(), rng.randrange(100)
        if kind < 0.12 and depth < 2:
            otherwise = script(rng, depth + 1) if rng.random() < 0.5 else None
            lines.append(("cond", which, rng.random() < 0.5, script(rng, depth + 1), otherwise))
        elif kind < 0.2 and depth < 2:
            lines.append(("loop", which, rng.randint(1, 3), script(rng, depth + 1), rng.randrange(100)))
        elif kind < 0.35:
            lines.append(("read", which))
        elif kind < 0.42:
            lines.append(("replace", which))
        elif kind < 0.6:
            lines.append(("view", which, rng.randrange(len(VIEWS))))
        elif kind < 0.85:
            lines.append(("change", which, rng.randrange(4), rng.choice((0.5, 2.0, -1.0))))
        else:
            lines.append(("new", which, rng.randrange(100)))
    return lines


def change(x, kind, number):
    if kind == 0:
        x *= number
    elif kind == 1:
        x[...] = number
    elif kind == 2:
        x[..., -1] += number
    else:
        x.clamp_(-1, 1)


class AtOnce:
    """Python and torch: the hook point is a variable."""

    def __init__(self, value):
        self.value = value
        self.names = [self.hook()]

    def hook(self):
        return self.value

    def replace(self, new):
        self.value = new

    def condition(self, holds, then, otherwise):
        lines = then if bool(holds) else otherwise
        if lines is not None:
            self.block(lines)

    def loop(self, count, start, lines, which):
        x = start
        for _ in range(count):
            known = len(self.names)
            self.names.append(x * torch.ones(4, 6))
            self.run(lines)
            x = x * 0.5 + self.names[which % len(self.names)].sum() * 0.1
            del self.names[known:]
        return x

    def block(self, lines):
        known = len(self.names)
        self.run(lines)
        del self.names[known:]  # what was made in a block is known in it alone

    def run(self, lines):
        for kind, which, *rest in lines:
            x = self.names[which % len(self.names)]
            if kind == "read":
                self.names.append(self.hook())
            elif kind == "replace":
                self.replace(x.sum() * 0.1 + self.hook() * 0.5)
            elif kind == "view":
                self.names.append(VIEWS[rest[0]](x))
            elif kind == "change":
                change(x, *rest)
            elif kind == "new":
                self.names.append(x.sum() * 0.01 + self.names[rest[0] % len(self.names)] * 2)
            elif kind == "cond":
                self.condition(x.sum() > 0 if rest[0] else x.sum() < 0, rest[1], rest[2])
            else:
                total = self.loop(rest[0], x.sum(), rest[1], rest[2])
                self.names.append(total + self.hook() * 0)


class Recorded(AtOnce):
    """The same in a trace: the hook point is a part of a block's output."""

    def __init__(self, tracer):
        self.tracer = tracer
        self.names = [self.hook()]

    def hook(self):
        return MODEL.layers[1].output[0, :4, :6]

    def replace(self, new):
        whole = MODEL.layers[1].output.clone()
        whole[0, :4, :6] = new
        MODEL.layers[1].output = whole

    def condition(self, holds, then, otherwise):
        with self.tracer.cond(holds) as branch:
            self.block(then)
        if otherwise is not None:
            with branch.otherwise():
                self.block(otherwise)

    def loop(self, count, start, lines, which):
        known = len(self.names)
        with self.tracer.loop(count, carry={"x": start}) as loop:
            self.names.append(loop.x * pl.ones(4, 6))
            self.run(lines)
            loop.next(x=loop.x * 0.5 + self.names[which % len(self.names)].sum() * 0.1)
            del self.names[known:]
        return loop.x


@pytest.mark.parametrize("seed", range(int(os.environ.get("PELLUCID_SCRIPTS", 300))))
def test_blocks(seed):
    with MODEL.trace(PROMPT):
        whole = MODEL.layers[1].output.save()
    lines = script(random.Random(seed))
    at_once = AtOnce(torch.from_numpy(whole.numpy()[0, :4, :6].copy()))
    at_once.run(lines)
    try:
        with MODEL.trace(PROMPT) as tracer:
            recorded = Recorded(tracer)
            recorded.run(lines)
            mine = [each.save() for each in recorded.names]
            flows_on = recorded.hook().save()
            MODEL.logits[0, 0, 0].save()
    except pl.NotComputedError as error:
        assert any(reason in str(error) for reason in REFUSED), lines
        # To refuse is right: what it would be depends on what ran. Nothing is left to compare.
        pytest.skip(f"refused: {str(error).splitlines()[0]}")
    for a, b in zip([*at_once.names, at_once.value], [*mine, flows_on]):
        assert np.allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-3), lines
