"""Tensors from and to other libraries. numpy and torch are imported only where they are there already, or asked for."""

from __future__ import annotations

import sys
from typing import Any

from . import _dtype
from ._core import Tensor as Core

_NUMPY = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "u8": "u1", "bool": "?", "bf16": "<u2"}
_OF_NUMPY = {"float64": "f64", "float32": "f32", "float16": "f16", "int64": "i64", "int32": "i32", "uint8": "u8", "bool": "bool"}
_WIDENED = {"int8": "int64", "int16": "int64", "uint16": "int64", "uint32": "int64", "uint64": "int64"}


def to_numpy(core: Core) -> Any:
    """A numpy array with elements of its own. numpy has no bf16: those come as float32, which holds them exactly."""
    import numpy

    array = numpy.frombuffer(core.data(), dtype=_NUMPY[core.dtype]).reshape(core.shape)
    if core.dtype == "bf16":
        return (array.astype(numpy.uint32) << 16).view(numpy.float32)
    return array


def bits(core: Core) -> Any:
    """The same, but bf16 as 16-bit numbers of the same bits."""
    import numpy

    return numpy.frombuffer(core.data(), dtype=_NUMPY[core.dtype]).reshape(core.shape)


def is_array(value: Any) -> bool:
    """Whether it is a tensor or array of another library, or numbers in lists."""
    if isinstance(value, (list, tuple)):
        return True
    return hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def from_array(value: Any, dtype: Any = None) -> Core:
    """A tensor from one of numpy, of torch, or anything that gives itself as an array; from numbers in lists."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _converted(_from_torch(torch, value), dtype)
    import numpy

    if isinstance(value, (list, tuple)) and any(hasattr(item, "_core") for item in value):
        value = [item.numpy() if hasattr(item, "_core") else item for item in value]
    array = numpy.asarray(value)
    if array.dtype == object:
        raise TypeError(f"a tensor cannot be made of {type(value).__name__} {str(value)[:60]!r}")
    if isinstance(value, (list, tuple)) and array.dtype == numpy.float64:
        # As torch reads Python's numbers.
        array = array.astype(numpy.float32)
    name = array.dtype.name
    if name == "bfloat16":  # ml_dtypes
        return _converted(Core.from_data(numpy.ascontiguousarray(array).tobytes(), list(array.shape), "bf16"), dtype)
    if name in _WIDENED:
        array = array.astype(_WIDENED[name])
        name = array.dtype.name
    if name not in _OF_NUMPY:
        raise TypeError(f"arrays of {name} cannot be used; convert to float32 or int64")
    array = numpy.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).reshape(array.shape)
    return _converted(Core.from_data(array.tobytes(), list(array.shape), _OF_NUMPY[name]), dtype)


def _converted(core: Core, dtype: Any) -> Core:
    if dtype is None or _dtype.dtype(dtype).short == core.dtype:
        return core
    from ._writer import Eager

    writer = Eager()
    return writer.one("to", {"input": writer.core(core), "dtype": _dtype.dtype(dtype).short})._core


def _from_torch(torch: Any, value: Any) -> Core:
    value = value.detach().cpu().contiguous()
    if value.dtype == torch.bfloat16:
        data = value.view(torch.int16).numpy().tobytes()
        return Core.from_data(data, list(value.shape), "bf16")
    return from_array(value.numpy())


def has_mask(index: Any) -> bool:
    """Whether an index has a tensor of bools: what it chooses depends on values."""
    items = index if type(index) is tuple else (index,)
    return any(is_array(item) and _is_bool(item) for item in items)


def _is_bool(item: Any) -> bool:
    kind = getattr(item, "dtype", None)
    if kind is not None:
        return str(kind).rpartition(".")[2] in ("bool", "bool_")
    while isinstance(item, (list, tuple)) and item:
        item = item[0]
    return isinstance(item, bool)


def chosen(core: Core, index: Any) -> Core:
    """What an index with masks chooses, of numbers that are there."""
    import numpy

    items = index if type(index) is tuple else (index,)
    plain = tuple(to_numpy(core_of(item)) if is_array(item) else item for item in items)
    part = numpy.ascontiguousarray(bits(core)[plain])
    return Core.from_data(part.tobytes(), list(part.shape), core.dtype)


def core_of(item: Any) -> Core:
    known = getattr(item, "_core", None)
    return known if isinstance(known, Core) else from_array(item)


class Capsule:
    """An array that gives itself by DLPack, bf16 as bf16."""

    def __init__(self, array: Any, dtype: str):
        self._array, self._dtype = array, dtype

    def __dlpack__(self, **options: Any) -> Any:
        return dlpack(self._array, self._dtype, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def dlpack(array: Any, dtype: str, **options: Any) -> Any:
    """A DLPack capsule of an array of `bits`, which it keeps; bf16 stays bf16."""
    if dtype == "bf16":
        capsule = array.__dlpack__()
        _mark_bfloat16(capsule)
        return capsule
    return array.__dlpack__(**options)


def _mark_bfloat16(capsule: Any) -> None:
    """Says in a capsule of 16-bit numbers that they are bf16: numpy itself has no such type."""
    import ctypes

    class DataType(ctypes.Structure):
        _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]

    class Tensor(ctypes.Structure):
        _fields_ = [
            ("data", ctypes.c_void_p),
            ("device_type", ctypes.c_int32),
            ("device_id", ctypes.c_int32),
            ("dimensions", ctypes.c_int32),
            ("dtype", DataType),
        ]

    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = Tensor.from_address(pointer(capsule, b"dltensor"))
    tensor.dtype.code = 4
