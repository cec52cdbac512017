"""numpy's functions on values of a trace: the closed list of them, with numpy's own signatures and meaning. Number types promote as everywhere
here, by PyTorch's rules; means and deviations of whole numbers are float64, as numpy's.

The functions stand in `_numpy_reductions`, `_numpy_forms` and `_numpy_products`.
"""

from __future__ import annotations

from typing import Any, Callable

from . import _operations as ops
from ._writer import as_tensor

FUNCTIONS: dict[str, Callable[..., Any]] = {}


def function(*names: str) -> Callable[[Any], Any]:
    """Lists a function under numpy's names."""

    def wrap(made: Any) -> Any:
        for name in names:
            FUNCTIONS[f"numpy.{name}"] = made
        return made

    return wrap


def converted(x: Any, dtype: Any) -> Any:
    """A tensor, of the number type that is asked for."""
    return as_tensor(x) if dtype is None else ops.to(as_tensor(x), dtype)


from . import _numpy_forms, _numpy_products, _numpy_reductions  # noqa: E402

__all__ = ["FUNCTIONS", "converted", "function", "_numpy_forms", "_numpy_products", "_numpy_reductions"]
