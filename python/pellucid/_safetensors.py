"""Reading and writing of safetensors files that hold tensors of any number type of programs."""

from __future__ import annotations

import json
import os
import struct
from typing import Any, BinaryIO

from ._core import Tensor as Core
from ._errors import PellucidError

_TYPES = {"F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "I64": "i64", "I32": "i32", "U8": "u8", "BOOL": "bool"}
_MAXIMUM_HEADER = 100 << 20


def read(path: str | os.PathLike[str]) -> tuple[str, dict[str, Core], dict[str, str]]:
    """A file's own name, its tensors, and what is written beside them."""
    with open(path, "rb") as file:
        return read_from(str(path), file)


def read_from(path: str, file: BinaryIO) -> tuple[str, dict[str, Core], dict[str, str]]:
    """The same of a file that is open."""

    def damaged(reason: str) -> PellucidError:
        return PellucidError(f"{path} cannot be read: {reason}\n  hint: it is no whole safetensors file")

    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 0 < length <= _MAXIMUM_HEADER:
        raise damaged("it does not begin with a header's length")
    try:
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        places = {name: _place(about) for name, about in header.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(f"its header says nothing that can be understood ({type(error).__name__}: {error})") from None
    data = file.read()
    tensors = {}
    for name, (dtype, shape, begin, end) in places.items():
        if not 0 <= begin <= end <= len(data):
            raise damaged(f"`{name}` ends at byte {end}, and the file has {len(data)}")
        try:
            tensors[name] = Core.from_data(data[begin:end], shape, dtype)
        except (PellucidError, OverflowError) as error:
            raise damaged(f"`{name}`: {error}") from None
    return path, tensors, metadata


def _place(about: dict[str, Any]) -> tuple[str, list[int], int, int]:
    begin, end = about["data_offsets"]
    return _TYPES[about["dtype"]], [int(size) for size in about["shape"]], int(begin), int(end)


def written(tensors: dict[str, Core], metadata: dict[str, str]) -> bytes:
    """A file of tensors, with what is written beside them."""
    names = {short: name for name, short in _TYPES.items()}
    header: dict[str, Any] = {"__metadata__": metadata}
    parts: list[bytes] = []
    end = 0
    for name, core in tensors.items():
        part = bytes(core.data())
        header[name] = {"dtype": names[core.dtype], "shape": list(core.shape), "data_offsets": [end, end + len(part)]}
        parts.append(part)
        end += len(part)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *parts])
