"""The language's random numbers, made again in numpy: what `crates/engine/src/operations/noise.rs` says, followed to the
letter. Writes `operations/noise.json` and `operations/drawn.json`, to which the engine's tests are held; with `--check`, holds
the files to what is made again; or import `Noise` and use it.

    python golden/philox.py [--check]
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

FNV_START, FNV_PRIME, WORD, LONG = 0xCBF29CE484222325, 0x100000001B3, (1 << 32) - 1, (1 << 64) - 1
# The bits of a number below 1 that each number type holds exactly.
HELD = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}


def philox(counter, key):
    """One block of Philox 4x32 with ten rounds: four words from a counter of four and a key of two, all numpy u64."""
    w, k = list(counter), list(key)
    for _ in range(10):
        left, right = np.uint64(0xD2511F53) * w[0], np.uint64(0xCD9E8D57) * w[2]
        high, low = np.uint64(32), np.uint64(WORD)
        w = [(right >> high) ^ w[1] ^ k[0], right & low, (left >> high) ^ w[3] ^ k[1], left & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return w


class Noise:
    """The generator of one node: by the program's seed, the node's label, and the coordinates it is evaluated at."""

    def __init__(self, seed, label, coordinates=()):
        stream = FNV_START
        for byte in label.encode() + b"\xff" + b"".join(c.to_bytes(8, "little") for c in coordinates):
            stream = ((stream ^ byte) * FNV_PRIME) & LONG
        self.seed, self.stream = seed, stream

    def bits(self, count):
        """Two times 64 bits for each element."""
        element = np.arange(count, dtype=np.uint64)
        whole = np.full(count, 0, dtype=np.uint64)
        counter = [element & np.uint64(WORD), element >> np.uint64(32),
                   whole + np.uint64(self.stream & WORD), whole + np.uint64(self.stream >> 32)]
        key = [whole + np.uint64(self.seed & WORD), whole + np.uint64(self.seed >> 32)]
        w = philox(counter, key)
        return w[0] | (w[1] << np.uint64(32)), w[2] | (w[3] << np.uint64(32))

    def rand(self, count, dtype="f32"):
        """In f64; exact in `dtype`."""
        held = HELD[dtype]
        return (self.bits(count)[0] >> np.uint64(64 - held)).astype(np.float64) / 2.0**held

    def randn(self, count):
        """In f64, to be rounded to the number type."""
        a, b = self.bits(count)
        u = ((a >> np.uint64(11)) + np.uint64(1)).astype(np.float64) / 2.0**53
        v = (b >> np.uint64(11)).astype(np.float64) / 2.0**53
        return np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * math.pi * v)

    def randint(self, low, high, count):
        return [low + (int(a) * (high - low) >> 64) for a in self.bits(count)[0]]

    def randperm(self, count):
        return np.argsort(self.bits(count)[0], kind="stable")

    def draw(self, logits, temperature=1.0, top_k=None, top_p=None, repetition_penalty=1.0, present=()):
        """A token of logits [tokens], as a generation draws it; `present` are the prompt's tokens and those made so far. The
        label is then the trace's name, and the coordinates are those of the invoke's cell, the invoke's place in its trace,
        the prompt's place in the invoke, and the step."""
        scores = [float(logit) for logit in logits]
        for token in set(present):
            scores[token] = scores[token] / repetition_penalty if scores[token] > 0 else scores[token] * repetition_penalty
        if temperature == 0:
            return max(range(len(scores)), key=lambda token: (scores[token], -token))
        order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))[:top_k]
        weights = [math.exp((scores[token] - scores[order[0]]) / temperature) for token in order]
        if top_p is not None:
            reached = np.cumsum([weight / sum(weights) for weight in weights])
            weights = weights[: int((reached < top_p).sum()) + 1]
        left = (int(self.bits(1)[0][0]) >> 11) / 2.0**53 * sum(weights)
        for token, weight in zip(order, weights):
            left -= weight
            if left < 0:
                return token
        return order[len(weights) - 1]


# Of how many tokens a generation that is drawn from always the same logits makes how many.
TOKENS, STEPS = 96, 4
PROMPTS = {"a": [[3, 1, 4], [2, 7]], "b": [[3, 1, 4]]}
CELLS = 3


def generations():
    """What generations draw whose logits are set to one table at every step: of a trace with the invokes `a` and `b`, and of a
    trace with `a` and a sweep with `b` for each cell."""
    table = [((37 * token) % 29 - 14) / 4 for token in range(TOKENS)]
    cases = []
    for seed, trace, options in [
        (0, "trace", {"temperature": 1.0}), (7, "trace", {"temperature": 0.5}), (7, "other", {"temperature": 0.5}),
        (LONG, "trace", {"temperature": 2.0, "top_k": 20}), (7, "trace", {"temperature": 1.5, "top_p": 0.75}),
        (7, "trace", {"temperature": 1.0, "top_k": 30, "top_p": 0.9, "repetition_penalty": 1.5}),
    ]:
        def made(coordinates, prompt):
            tokens = []
            for step in range(STEPS):
                noise = Noise(seed, trace, [*coordinates, step])
                tokens.append(noise.draw(table, present=prompt + tokens, **options))
            return tokens

        def invoke(name, coordinates):
            return [made([*coordinates, place], prompt) for place, prompt in enumerate(PROMPTS[name])]

        cases.append({
            "seed": seed, "trace": trace, "options": options,
            "invokes": {"a": invoke("a", [0]), "b": invoke("b", [1])},
            "cells": [invoke("b", [cell, 1]) for cell in range(CELLS)],
        })
    return {"logits": table, "steps": STEPS, "prompts": PROMPTS, "cases": cases}


def main():
    # The known answers of the generator's authors (Random123, kat_vectors) for 4x32 with ten rounds.
    zeros, ones = [np.uint64(0)] * 4, [np.uint64(WORD)] * 4
    assert [int(w) for w in philox(zeros, zeros[:2])] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    with np.errstate(over="ignore"):
        assert [int(w) for w in philox(ones, ones[:2])] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    cases = []
    for seed, label, coordinates in [(0, "noise", []), (42, "noise", []), (42, "noise", [0]), (42, "noise", [3, 1]),
                                     (LONG, "Rauschen_é", [LONG])]:
        noise = Noise(seed, label, coordinates)
        cases.append({
            "seed": seed, "label": label, "coordinates": coordinates,
            "randn": noise.randn(64).tolist(),
            "rand": {dtype: noise.rand(16, dtype).tolist() for dtype in HELD},
            "randint": [{"low": low, "high": high, "values": noise.randint(low, high, 16)}
                        for low, high in [(0, 10), (-5, 5), (-(1 << 63), (1 << 63) - 1)]],
            "randperm": noise.randperm(20).tolist(),
        })
    folder = Path(__file__).parent / "operations"
    path, drawn = folder / "noise.json", folder / "drawn.json"
    if "--check" in sys.argv[1:]:
        assert json.loads(drawn.read_text()) == json.loads(json.dumps(generations())), "drawn.json"
        return check(json.loads(path.read_text()), json.loads(json.dumps(cases)))
    drawn.write_text(json.dumps(generations()) + "\n")
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f"[\n{lines}\n]\n")


def check(written, made):
    """Everything exactly, but for the logarithm's and the cosine's last digit, which differs between processors."""
    assert len(written) == len(made), (len(written), len(made))
    for old, new in zip(written, made):
        normal = zip(old.pop("randn"), new.pop("randn"), strict=True)
        assert all(math.isclose(a, b, rel_tol=1e-13, abs_tol=1e-15) for a, b in normal), old["label"]
        assert old == new, (old, new)
    print(f"noise.json: {len(written)} generators are as described")


if __name__ == "__main__":
    main()
