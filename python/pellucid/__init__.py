"""Look into neural networks, and intervene in them.

```python
import pellucid as pl

model = pl.Model("bundled")  # or a hub id, a folder, a GGUF file
with model.trace("The Eiffel Tower is in the city of") as tracer:
    hidden = model.transformer.h[1].output.save()
    model.transformer.h[2].output[:, -1] *= 2
    logits = model.logits.save()
print(hidden.shape, model.tokenizer.decode(logits[0, -1].argmax()))
```

A trace only writes a program down. When its block ends, all of it is checked against the model and then run, and the names that were
saved are the results.
"""

from __future__ import annotations

import os as _os
import sys as _sys
from typing import TYPE_CHECKING, Any

from . import _core
from ._core import __version__
from ._tensor import Shape, Tensor
from ._compat import compat
from ._dtype import DType, bfloat16, bool_, float16, float32, float64, int32, int64, uint8
from ._errors import (
    ControlFlowError,
    Fault,
    ModelError,
    NotComputedError,
    OperationError,
    PellucidError,
    ProgramError,
    RemoteError,
    RunError,
)
from ._functions import (
    arange, dot, einsum, from_numpy, full_like, lerp, ones, ones_like, rand, rand_like, randn, randn_like, save, square, tensor,
    zeros, zeros_like,
)
from ._model import Model
from ._module import Module
from ._operations import (
    adam_step, amax, amin, argmax, argmin, argsort, binary_cross_entropy_with_logits, cat, ceil, cholesky, chunk, clamp,
    clip_grad_norm, cos, cosine_similarity, cross_entropy, cumprod, cumsum, det, diagonal, eigh, erf, exp, eye, floor, full, gather,
    gelu, index_select, inv, isfinite, isinf, isnan, kl_div, layer_norm, linspace, log, log1p, log2, log_softmax, logical_and,
    logical_not, logical_or, logsumexp, lstsq, masked_fill, matmul, matrix_exp, maximum, mean, minimum, mse_loss, nll_loss, norm,
    one_hot, orthogonal, outer, pad, pinv, qr, randint, randperm, reciprocal, relu, rms_norm, roll, rsqrt, scatter, scatter_add,
    sgd_step, sigmoid, sign, silu, sin, slogdet, softmax, softplus, solve, sort, split, sqrt, stack, std, svd, take_along_dim, tanh,
    topk, tril, triu, trunc, var, where,
)
from ._operations import abs, all, any, pow, prod, round, sum  # noqa: A004
from ._program import Program, explain, scan
from ._regions import cond, texts
from ._run import Results
from ._steering import Steering
from ._tokenizer import Tokenizer
from ._trace import Session, Trace
from ._writer import manual_seed

if TYPE_CHECKING:
    from . import show
    from ._adapters import Lora, SparseAutoencoder
    from ._optimiser import Optimiser, Schedule
    from ._remote import Job, login
    from ._training import Checkpoint

#: What is meant to be used: type checkers take other names for the package's own affair.
__all__ = [
    "__version__", "abs", "adam_step", "all", "amax", "amin", "any", "arange", "argmax", "argmin", "argsort", "bfloat16",
    "binary_cross_entropy_with_logits", "bool_", "cat", "ceil", "Checkpoint", "cholesky", "chunk", "clamp", "clip_grad_norm", "compat",
    "concat", "cond", "ControlFlowError", "cos", "cosine_similarity", "cross_entropy", "cumprod", "cumsum", "det", "diagonal", "dot",
    "DType", "eigh", "einsum", "erf", "exp", "explain", "eye", "Fault", "float16", "float32", "float64", "floor", "from_numpy", "full",
    "full_like", "gather", "gelu", "index_select", "int32", "int64", "inv", "isfinite", "isinf", "isnan", "Job", "kl_div", "layer_norm",
    "lerp", "linspace", "log", "log1p", "log2", "log_softmax", "logical_and", "logical_not", "logical_or", "login", "logsumexp", "Lora",
    "lstsq", "manual_seed", "masked_fill", "matmul", "matrix_exp", "maximum", "mean", "minimum", "Model", "ModelError", "Module",
    "mse_loss", "nll_loss", "norm", "NotComputedError", "one_hot", "ones", "ones_like", "OperationError", "Optimiser", "orthogonal",
    "outer", "pad", "PellucidError", "pinv", "pow", "prod", "Program", "ProgramError", "qr", "rand", "rand_like", "randint", "randn",
    "randn_like", "randperm", "reciprocal", "relu", "RemoteError", "Results", "rms_norm", "roll", "round", "rsqrt", "RunError", "save",
    "scan", "scatter", "scatter_add", "Schedule", "Session", "sgd_step", "Shape", "show", "sigmoid", "sign", "silu", "sin", "slogdet",
    "softmax", "softplus", "solve", "sort", "SparseAutoencoder", "split", "sqrt", "square", "stack", "std", "Steering", "sum", "svd",
    "take_along_dim", "tanh", "Tensor", "tensor", "texts", "Tokenizer", "topk", "Trace", "tril", "triu", "trunc", "uint8", "var", "where",
    "zeros", "zeros_like",
]

#: nnsight's and torch's name for joining along a dimension.
concat = cat

if hasattr(_os, "register_at_fork"):  # not on Windows, where no process is forked off
    _os.register_at_fork(after_in_child=_core.forked)

if "IPython" in _sys.modules:
    _shell = getattr(_sys.modules["IPython"], "get_ipython", lambda: None)()
    if _shell is not None:
        from ._completion import install as _install

        _install(_shell)


#: What few need, and where it is.
_LATER = {
    "Job": "._remote", "login": "._remote", "Lora": "._adapters", "SparseAutoencoder": "._adapters", "Optimiser": "._optimiser",
    "Schedule": "._optimiser", "Checkpoint": "._training",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "show":
        import importlib

        return importlib.import_module(".show", __name__)
    module = _LATER.get(name)
    if module is not None:
        import importlib

        return getattr(importlib.import_module(module, __name__), name)
    raise AttributeError(f"module `pellucid` has no `{name}`")
