"""Compares golden files that were made again with those of the last commit.

    python golden/compare.py

Sums in another order, on another processor, move the last digits: numbers may differ by 1e-4 of the largest of their tensor (of a
list, in JSON), or by what `LOOSER` says of a file. All else is the same. Prints the largest deviation of each file that changed
at all, and fails where one is too large.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import safetensors.torch
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLOSE = 1e-4
# File name: what its numbers may differ by. Thirty steps of Adam, and differences of nearly equal logits.
LOOSER = {"lora.safetensors": 1e-3, "path_patching.safetensors": 5e-4}


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout


def deviation(one, other, path=""):
    """The largest deviation of two structures, relative to the largest number beside it; text and form must be the same."""
    if isinstance(one, torch.Tensor):
        if one.dtype != other.dtype:
            raise ValueError(f"{path}: {one.dtype} against {other.dtype}")
        # A 16-bit number's last digit is this much coarser than what others may differ by.
        coarse = 100 if one.dtype in (torch.float16, torch.bfloat16) else 1
        wide = lambda tensor: (tensor.double() if tensor.dtype.is_floating_point else tensor).numpy()  # noqa: E731
        return deviation(wide(one), wide(other), path) / coarse
    if isinstance(one, np.ndarray):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise ValueError(f"{path}: {one.dtype} {one.shape} against {other.dtype} {other.shape}")
        if one.size == 0 or np.array_equal(one, other):
            return 0.0
        if not np.issubdtype(one.dtype, np.floating):
            raise ValueError(f"{path}: whole numbers differ")
        one, other = one.astype(np.float64), other.astype(np.float64)
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        finite = np.isfinite(one) & np.isfinite(other)
        if not (same | finite).all():
            raise ValueError(f"{path}: infinities differ")
        scale = max(np.abs(one[finite]).max(initial=0.0), 1e-6)
        return float(np.abs(one - other)[finite].max(initial=0.0) / scale)
    if type(one) is not type(other):
        raise ValueError(f"{path}: {one!r} against {other!r}")
    if isinstance(one, dict):
        if one.keys() != other.keys():
            raise ValueError(f"{path}: {sorted(one.keys() ^ other.keys())} in one alone")
        return max((deviation(one[key], other[key], f"{path}/{key}") for key in one), default=0.0)
    if isinstance(one, list):
        if len(one) != len(other):
            raise ValueError(f"{path}: {len(one)} against {len(other)} elements")
        if one and all(isinstance(number, float) for number in one + other):
            return deviation(np.array(one), np.array(other), path)
        return max((deviation(*pair, f"{path}/{place}") for place, pair in enumerate(zip(one, other))), default=0.0)
    if isinstance(one, float):
        return deviation(np.array([one]), np.array([other]), path)
    if one != other:
        raise ValueError(f"{path}: {one!r} against {other!r}")
    return 0.0


def parsed(name, content):
    if name.endswith(".safetensors"):
        return safetensors.torch.load(content)
    if name.endswith(".json"):
        return json.loads(content)
    return content


def main():
    changed = git("diff", "--name-only", "--", "golden").decode().split()
    changed = [name for name in changed if not name.endswith((".py", ".md", ".txt"))]
    wrong = 0
    for name in changed:
        path = ROOT / name
        if not path.exists():
            print(f"{name}: is not made any more")
            wrong += 1
            continue
        try:
            found = deviation(parsed(name, git("show", f"HEAD:{name}")), parsed(name, path.read_bytes()))
        except ValueError as error:
            print(f"{name}: {error}")
            wrong += 1
            continue
        bound = LOOSER.get(path.name, CLOSE)
        wrong += found > bound
        print(f"{name}: {found:.1e}" + (f", above {bound:.0e}" if found > bound else ""))
    new = git("ls-files", "--others", "--exclude-standard", "--", "golden").decode().split()
    for name in new:
        print(f"{name}: is made, but not in the repository")
    print(f"{len(changed)} golden files differ in their bytes; {wrong + len(new)} in what they say")
    sys.exit(bool(wrong or new))


if __name__ == "__main__":
    main()
