"""How functions of other libraries are refused: by name, with what to do instead."""

from __future__ import annotations

import sys
from typing import Any

from ._errors import NotComputedError

#: What does the same as a method of torch or numpy that is not there.
INSTEAD = {
    "median": "`x.sort(-1)[0][..., (x.shape[-1] - 1) // 2]`",
    "kthvalue": "`x.sort(-1)[0][..., k - 1]`",
    "tan": "`x.sin() / x.cos()`",
    "sinh": "`(x.exp() - (-x).exp()) / 2`",
    "cosh": "`(x.exp() + (-x).exp()) / 2`",
    "log10": "`x.log() / math.log(10)`",
    "exp2": "`(x * math.log(2)).exp()`",
    "erfc": "`1 - x.erf()`",
    "frac": "`x - x.trunc()`",
    "fmod": "`x - (x / y).trunc() * y`",
    "hypot": "`(x * x + y * y).sqrt()`",
    "dist": "`(x - y).norm()`",
    "equal": "`(x == y).all()`",
    "isclose": "`(x - y).abs() <= 1e-8 + 1e-5 * y.abs()`",
    "allclose": "`((x - y).abs() <= 1e-8 + 1e-5 * y.abs()).all()`",
    "vdot": "`(x * y).sum()`",
    "inner": "`(x * y).sum(-1)`",
    "cov": "`c @ c.mT / (x.shape[1] - 1)` of `c = x - x.mean(1, keepdim=True)`",
    "diag": "`x.diagonal()`",
    "fliplr": "`x.flip(1)`",
    "flipud": "`x.flip(0)`",
    "deg2rad": "`x * (math.pi / 180)`",
    "rad2deg": "`x * (180 / math.pi)`",
    "sgn": "`x.sign()`",
    "nan_to_num": "`x.masked_fill(x.isnan(), 0.0)`",
    "split_with_sizes": "`x.split(sizes, dim)`",
    "broadcast_to": "`x.expand(*sizes)`",
    "nelement": "`x.numel()`",
    "ndimension": "`x.dim()`",
    "itemsize": "`x.dtype.itemsize`",
    "element_size": "`x.dtype.itemsize`",
    "nbytes": "`x.numel() * x.dtype.itemsize`",
    "new_tensor": "`pl.tensor(data)`",
    "byte": "`x.to(\"uint8\")`",
    "detach_": "`x.detach()`",
    "astype": "`x.to(dtype)`",
    "copy": "`x.clone()`",
    "register_hook": "`with loss.backward(): x.grad[...] = value`, which reads and changes gradients on their way back",
    "is_nested": (
        "`torch.nn.functional.scaled_dot_product_attention(q, k, v)` between modules `torch.nn.Linear`: `torch.nn.MultiheadAttention`, and what else "
        "looks at how a tensor lies in memory, cannot be recorded"
    ),
}
#: What torch's tensors have and those here have not, by which a slip is told from a wish where torch is not loaded.
_TORCH = frozenset((
    "H acos acosh addbmm addr adjoint allclose angle apply arccos arccosh arcsin arcsinh arctan arctan2 arctanh argwhere as_strided as_strided_scatter "
    "as_subclass asin asinh atan atan2 atanh bernoulli bincount bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor "
    "broadcast_to byte cauchy ccol_indices cdouble cfloat chalf char cholesky_inverse cholesky_solve coalesce col_indices conj conj_physical const_data_ptr "
    "copysign corrcoef cosh cov cross crow_indices cummax cummin data_ptr deg2rad dense_dim dequantize detach diag diag_embed diagflat diagonal_scatter "
    "digamma dim_order dist dsplit eig element_size eq equal erfc erfinv exp2 exponential fill_diagonal fliplr flipud float_power fmod frac frexp gcd ge "
    "geometric geqrf get_device grad_dtype grad_fn greater greater_equal gt hardshrink hash_tensor heaviside histc histogram hsplit hypot i0 igamma igammac "
    "imag index index_reduce indices inner int_repr ipu is_coalesced is_complex is_conj is_contiguous is_cpu is_cuda is_distributed is_inference is_ipu "
    "is_leaf is_maia is_meta is_mkldnn is_mps is_mtia is_neg is_nested is_nonzero is_pinned is_quantized is_same_size is_set_to is_shared is_signed "
    "is_sparse is_sparse_csr is_vulkan is_xla is_xpu isclose isneginf isposinf isreal istft itemsize kron kthvalue layout lcm ldexp le less less_equal "
    "lgamma log10 log_normal logaddexp2 logcumsumexp logical_and logical_not logical_or logical_xor lstsq lt lu lu_solve mH map map2 masked_scatter "
    "matrix_power median mode module_load mtia multinomial mvlgamma name nan_to_num nanmedian nanquantile narrow_copy nbytes ndimension ne nelement new "
    "new_empty new_empty_strided new_tensor nextafter nonzero_static normal not_equal orgqr ormqr output_nr pin_memory polygamma positive prelu put "
    "q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point qscheme quantile rad2deg random real record_stream "
    "register_hook register_post_accumulate_grad_hook reinforce renorm resize resize_as resize_as_sparse resolve_conj resolve_neg retains_grad rot90 "
    "row_indices scatter_reduce select_scatter set sgn share_memory short signbit sinc sinh slice_inverse slice_scatter smm solve sparse_dim sparse_mask "
    "sparse_resize sparse_resize_and_clear split_with_sizes squeeze sspaddmm stft storage storage_offset storage_type stride sum_to_size swapaxes swapdims "
    "symeig t tan tensor_split to_dense to_mkldnn to_padded_tensor to_sparse to_sparse_bsc to_sparse_bsr to_sparse_coo to_sparse_csc to_sparse_csr "
    "transpose triangular_solve unfold uniform unique unique_consecutive unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze untyped_storage values "
    "vdot volatile vsplit xlogy xpu"
).split())


def unknown(name: str) -> NotComputedError:
    """A function that has no counterpart in the language."""
    instead = INSTEAD.get(name.rpartition(".")[2])
    return NotComputedError(
        f"`{name}` cannot be recorded: a program is made of a closed set of operations\n  hint: {f'write {instead}; ' if instead else ''}"
        "docs/operations.md lists them; after the trace results work with every function of numpy and torch"
    )


def option(name: str, key: str, value: Any, instead: str = "") -> NotComputedError:
    """An option that has no counterpart."""
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"<{type(value).__name__}>"
    return NotComputedError(
        f"`{name}` with `{key}={shown}` cannot be recorded\n  hint: "
        f"{instead or 'leave it out, or write what it does with operations (docs/operations.md); after the trace results take it'}"
    )


def not_so(name: str, error: TypeError) -> NotComputedError:
    """Arguments that do not fit."""
    told = str(error).removeprefix("bind() ")
    return NotComputedError(f"`{name}` cannot be recorded with these arguments: {told}\n  hint: docs/operations.md has each operation's parameters")


def no_method(tensor: Any, name: str) -> AttributeError:
    """What a tensor of torch or an array of numpy may have, and tensors here have not."""
    from difflib import get_close_matches

    near = get_close_matches(name, [each for each in dir(type(tensor)) if not each.startswith("_")], 3, 0.7)
    near = "did you mean " + " or ".join(f"`{each}`" for each in near) + "?" if near else ""
    theirs = _of_libraries(name)
    hints = [f"here it is written {INSTEAD[name]}"] if name in INSTEAD else []
    if tensor._core is not None and theirs and name != "is_nested":
        hints.append("a result has it as " + " or ".join(f"{kind}, `x.{method}().{name}`" for kind, method in theirs))
    elif theirs and not hints:
        kinds = ", ".join(kind for kind, _ in theirs)
        hints.append(f"{kinds} has it, but it cannot be recorded: docs/operations.md lists what can; results have it, `x.{theirs[0][1]}().{name}`")
    elif near and not hints:
        hints, near = [near], ""
    elif not hints and tensor._core is not None:
        hints.append("as `x.torch()` a result is a tensor of torch, as `x.numpy()` an array, and has what these have")
    elif not hints:
        hints.append("docs/operations.md lists what can be recorded; after the trace results are tensors of torch and arrays as well")
    told = "; ".join(hints) + (f"; {near}" if near and name not in INSTEAD else "")
    return AttributeError(f"a tensor has no `{name}`\n  hint: {told}", name=name, obj=tensor)


def _of_libraries(name: str) -> list[tuple[str, str]]:
    """Which libraries' tensors have it, and by which method a result becomes one."""
    import numpy

    torch = sys.modules.get("torch")
    of_torch = hasattr(torch.Tensor, name) if torch is not None else name.removesuffix("_") in _TORCH
    found = [("a tensor of torch", "torch")] if of_torch else []
    return found + ([("an array of numpy", "numpy")] if hasattr(numpy.ndarray, name) else [])


def into(name: str, kind: str) -> NotComputedError:
    """A value of a trace written into what is not of the trace."""
    return NotComputedError(
        f"`{name}` would write a value that is not computed yet into {kind}\n  hint: make a new value, `y = x + value`, or begin with "
        "`pl.tensor(x)`"
    )
