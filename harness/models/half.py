"""Half precision on a CPU: what autocast holds in FP16 or BF16 is rounded to it and computed in FP32.

Few CPUs multiply halves; the others are 3 to 7 times slower at it than in FP32. So a tensor that would be
half stays FP32 and holds numbers of the half format alone. An operator computes in FP32 from rounded operands
and its result is rounded, as tensor cores do (operands half, sums FP32: micikevicius2018mixed, Sec. 3.3,
memory). On the way back the gradient of each such value is rounded at the same place. Rounding is torch's own
cast there and back, x.to(half).to(float32), whose gradient is the same pair of casts: overflow becomes
infinite and small gradients become zero, as in the format itself.

Which operator gives what follows torch's documented lists of CUDA autocast (torch.amp, "Op-Specific
Behavior"), and the rules of type promotion for the rest. A tensor knows whether it stands for a half one by
the attribute `MARK`; networks that ask for `x.dtype` read float32.

Differs from halves in memory: several gradients that meet in one tensor are added in FP32 and rounded once; a
function that torch writes in Python out of others (local_response_norm) counts as one operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

MARK = "_stands_for_half"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operands become half, so does the result. The lists keep the order of torch's page.
IN_HALF = _names(
    """
    addbmm addmm addmv addr baddbmm bmm chain_matmul multi_dot conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d linear matmul __matmul__ __rmatmul__ mm mv prelu bilinear einsum
    tensordot scaled_dot_product_attention
    """
)
# Operands and result are FP32.
IN_FP32 = _names(
    """
    __pow__ __rdiv__ __rpow__ __rtruediv__ acos asin binary_cross_entropy_with_logits cosh
    cosine_embedding_loss cdist cosine_similarity cross_entropy cumprod cumsum dist erfinv exp expm1
    group_norm hinge_embedding_loss kl_div l1_loss layer_norm log log10 log_softmax log1p log2
    margin_ranking_loss mse_loss multilabel_margin_loss multi_margin_loss nll_loss norm normalize pdist
    poisson_nll_loss pow prod reciprocal rsqrt sinh smooth_l1_loss soft_margin_loss softmax softmin
    softplus sum renorm tan triplet_margin_loss
    """
)
# The result is in the format of the first operand, although the others (scale, shift) are FP32.
LIKE_THE_FIRST = frozenset({"batch_norm", "instance_norm"})
# Of halves these give halves, without rounding.
EXACT = _names(
    """
    relu relu_ max_pool1d max_pool2d max_pool1d_with_indices max_pool2d_with_indices adaptive_max_pool2d
    flatten unflatten view view_as reshape reshape_as permute transpose swapaxes movedim contiguous
    clone detach cat concat stack chunk split tensor_split unbind narrow select __getitem__ squeeze
    unsqueeze expand expand_as repeat flip roll pad neg __neg__ abs maximum minimum max min amax amin
    topk sort gather index_select where pixel_shuffle pixel_unshuffle channel_shuffle requires_grad_
    zeros_like ones_like empty_like
    """
)
CASTS = frozenset({"to", "type", "type_as", "float", "double", "half", "bfloat16"})
# Written in Python, with matrix products inside that nobody would round.
REFUSED = frozenset(
    {"multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"}
)


class EmulatedHalf(TorchFunctionMode):
    """While it is entered, torch's functions compute on a CPU as under `torch.autocast` on a GPU.

    Gradients follow by autograd, which needs no mode: `backward` may be called outside.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """
        Args:
            dtype: torch.float16 or torch.bfloat16.
        """
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """
        Raises:
            ValueError: the function holds matrix products that cannot be rounded from outside.
        """
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        # Attributes: x.shape, x.T.
        if name == "__get__":
            result = func(*args, **kwargs)
            return marked(result) if isinstance(result, Tensor) and is_half(args[0]) else result
        if name in IN_HALF:
            args, kwargs = self._cast(args), dict(zip(kwargs, self._cast(kwargs.values()), strict=True))
            return self._rounded(func(*args, **kwargs))
        if name in REFUSED:
            raise ValueError(f"half precision on a CPU does not know {name}: use precision fp32, or a GPU")
        result = func(*args, **kwargs)
        if name in CASTS:
            return self._converted(name, result, args, kwargs)
        if name == "__setitem__" and is_half(args[0]):
            self._round_in_place(args[0])
        if args and result is args[0]:
            return self._round_in_place(result) if is_half(result) and name not in EXACT else result
        if name in IN_FP32 or not _gives_half(name, args, kwargs):
            return result
        return marked(result) if name in EXACT else self._rounded(result)

    def _round(self, value: Tensor) -> Tensor:
        """To the nearest half, ties to even; the gradient is rounded too."""
        return value.to(self._dtype).to(torch.float32)

    def _round_in_place(self, value: Tensor) -> Tensor:
        """What an operator left in its first operand.

        A copy that autograd sees would give the old content a gradient of zeros, to be carried on.
        """
        content = value.data
        content.copy_(content.to(self._dtype))
        if value.requires_grad:
            value.register_hook(self._round)
        return value

    def _rounded(self, result: Any) -> Any:
        """Every FP32 tensor of a result as a half; other values as they are."""
        if isinstance(result, Tensor):
            return mark(self._round(result)) if result.dtype == torch.float32 else result
        if isinstance(result, tuple | list):
            values = [self._rounded(value) for value in result]
            # Named results of torch (torch.return_types) are made from one sequence, as tuples are.
            return type(result)(values)
        return result

    def _cast(self, values: Iterable[Any]) -> tuple[Any, ...]:
        """Operands of an operator that computes in half."""
        return tuple(self._cast_one(value) for value in values)

    def _cast_one(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._round(value) if value.dtype == torch.float32 and not is_half(value) else value
        if isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
            return type(value)(self._cast(value))
        return value

    def _converted(self, name: str, result: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """What `x.to(...)` and its like give: a half where the format is asked for or kept."""
        wanted = _asked_dtype(name, args, kwargs)
        if not isinstance(result, Tensor) or wanted is None:
            return marked(result) if args and is_half(args[0]) and isinstance(result, Tensor) else result
        if wanted == self._dtype:
            return mark(self._round(args[0].float()))
        # A cast to the dtype that the tensor has already returns the tensor itself, which stays a half.
        return result.view_as(result) if result is args[0] and is_half(result) else result


def is_half(value: Any) -> bool:
    """Whether an FP32 tensor stands for a half one."""
    return getattr(value, MARK, False)


def mark(value: Tensor) -> Tensor:
    """The same tensor, which stands for a half one from here on."""
    setattr(value, MARK, True)
    return value


def marked(result: Any) -> Any:
    """The same result, whose FP32 tensors stand for half ones."""
    for value in result if isinstance(result, tuple | list) else (result,):
        if isinstance(value, Tensor) and value.dtype == torch.float32:
            mark(value)
    return result


def _gives_half(name: str, args: tuple[Any, ...], kwargs: Any) -> bool:
    """torch's promotion: halves alone give a half; tensors of no dimension do not decide among others."""
    if name in LIKE_THE_FIRST:
        return bool(args) and is_half(args[0])
    if "dtype" in kwargs:
        return False
    floats = [value for value in _tensors((*args, *kwargs.values())) if value.is_floating_point()]
    deciding = [value for value in floats if value.dim()] or floats
    return bool(deciding) and all(map(is_half, deciding))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (each for each in value if isinstance(each, Tensor))


def _asked_dtype(name: str, args: tuple[Any, ...], kwargs: Any) -> torch.dtype | None:
    """The format that a cast names; that of a tensor which stands for a half is the one it is written in."""
    named = {
        "float": torch.float32,
        "double": torch.float64,
        "half": torch.float16,
        "bfloat16": torch.bfloat16,
    }
    if name in named:
        return named[name]
    for value in (*args[1:], *kwargs.values()):
        if isinstance(value, torch.dtype):
            return value
        if isinstance(value, Tensor) and not is_half(value):
            return value.dtype
    return None
