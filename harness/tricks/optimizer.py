"""How weights start and move: initial values, the optimizer's rule, what it clips and decays, precision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.tricks.base import ParameterGroup, Trick, require, trick

if TYPE_CHECKING:
    from torch import nn


@trick
class Initialisation(Trick):
    """Initialisation: how the weights are drawn before training.

    Paper: he2019bag, arXiv:1812.01187, Sec. 2.1: Xavier; he2015delving, arXiv:1502.01852, Eq. (10) and Eq.
        (14) (memory): he_fan_in, he_fan_out; szegedy2016rethinking, arXiv:1512.00567, whose released code has
        truncated_normal
    Equation: xavier: U(-a, a) with a = sqrt(6 / (fan_in + fan_out));   he: N(0, 2 / fan);   he_average:
        N(0, 2 / (1 + 0.25^2) / mean(fan_in, fan_out));   truncated_normal and
        gaussian: N(0, s^2), the former cut at 2 s
    Acts on: recipe (initialisation)
    Defaults: scheme = xavier (the text of he2019bag; its authors' code has he_average, as the study)
    Differs: he2019bag writes a = sqrt(6 / (d_in + d_out)), d_in and d_out being channels; the fans of xavier
        count the kernel's area too (glorot2010understanding), so that its 3x3 convolutions start three times
        smaller. harness/models/blocks.py says what each scheme does to linear layers. A network of a library
        keeps its own weights' rule whatever the scheme.
    """

    name: ClassVar[str] = "initialisation"
    scheme: Literal[
        "he_fan_out", "he_fan_in", "he_average", "xavier", "truncated_normal", "gaussian", "own"
    ] = "xavier"

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(initialisation=self.scheme)


@trick
class FineTuning(Trick):
    """Fine-tuning: training starts from the weights of another, finished training.

    Paper: he2019bag, arXiv:1812.01187, Sec. 6: networks of ImageNet, trained on for detection and
        segmentation
    Equation: w_0 = the weights that the run of `source` with the same seed was evaluated with
    Acts on: none (initial weights)
    Defaults: no options; source, an arm of the study, is required
    Differs: the paper trains on for other tasks, here it is for other classes; its Table 7 (Places365) is not
        fine-tuning. Where the data sets have different numbers of classes, the classifiers are initialised as
        in any training; any other difference between the two networks is an error.
    """

    name: ClassVar[str] = "fine_tuning"
    arms: ClassVar[tuple[str, ...]] = ("source",)


@trick
class Fp16(Trick):
    """FP16: forward and backward in half precision, with FP32 master weights and loss scaling.

    Paper: he2019bag, arXiv:1812.01187, Sec. 3.2; method from micikevicius2018mixed, arXiv:1710.03740,
        Sec. 3 (memory)
    Equation: g = grad(S * loss) / S with activations and gradients in FP16; the weights are updated in FP32
    Acts on: recipe (precision)
    Defaults: no options
    Differs: torch.autocast decides per operator what runs in FP16 and keeps FP32 weights as the masters,
        where the paper holds an FP16 copy of all parameters; the scale S is dynamic (torch.amp.GradScaler);
        he2019bag calls a scalar that multiplies the loss "also a practical solution", without saying that it
        was used. On a CPU every half value is an FP32 one rounded to FP16 (harness/models/half.py), so that
        the row means the same on any machine.
    """

    name: ClassVar[str] = "fp16"
    conflicts: ClassVar[tuple[str, ...]] = ("bf16",)

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(precision="fp16")


@trick
class Bf16(Trick):
    """BF16: forward and backward in bfloat16, with FP32 master weights and no loss scaling.

    Paper: kalamkar2019study, arXiv:1905.12322; the place it takes is that of FP16 in he2019bag,
        arXiv:1812.01187, Sec. 3.2
    Equation: none: bfloat16 has the exponent range of FP32, so that gradients need no scale
    Acts on: recipe (precision)
    Defaults: no options
    Differs: not a trick of he2019bag, whose rows are FP16. It has 8 significant bits where FP16 has 11, so
        its effect is reported under its own name. On a CPU it is emulated, as FP16 is.
    """

    name: ClassVar[str] = "bf16"
    conflicts: ClassVar[tuple[str, ...]] = ("fp16",)

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(precision="bf16")


@trick
class RmsProp(Trick):
    """RMSProp: each step is divided by a running root mean square of the gradient.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 8 and Table 3, row "Inception-v2 RMSProp"
    Equation: v_n = decay * v_{n-1} + (1 - decay) * g_n^2;   tf: v_0 = 1, b_n = momentum * b_{n-1} + lr * g_n
        / sqrt(v_n + eps), w_n = w_{n-1} - b_n;   torch: v_0 = 0, b_n = momentum * b_{n-1} + g_n / (sqrt(v_n)
        + eps), w_n = w_{n-1} - lr * b_n
    Acts on: recipe (optimizer, optimizer_args, lr)
    Defaults: decay = 0.9, eps = 1.0 and lr = 0.045 (the paper); momentum = 0.9 (the paper's released code);
        form = tf (the paper was trained with TensorFlow)
    Differs: 50 replicas made the paper's steps; here each is made from the whole batch, as in TensorFlow's
        released synchronous trainer. With eps = 1.0 the place of eps matters: a first gradient of 0.1 moves a
        weight by 0.072 lr with form = tf and by 0.097 lr with form = torch. The rate is an option of this
        trick, so tricks that scale the rate exclude it.
    """

    name: ClassVar[str] = "rmsprop"
    conflicts: ClassVar[tuple[str, ...]] = ("linear_lr_scaling", "higher_lr")
    decay: float = 0.9
    eps: float = 1.0
    momentum: float = 0.9
    form: Literal["tf", "torch"] = "tf"
    lr: float = 0.045

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, f"rmsprop: decay must be a number in [0, 1), got {self.decay!r}")
        require(self.eps > 0, f"rmsprop: eps must be a number > 0, got {self.eps!r}")
        require(
            0 <= self.momentum < 1, f"rmsprop: momentum must be a number in [0, 1), got {self.momentum!r}"
        )
        require(self.lr > 0, f"rmsprop: lr must be a number > 0, got {self.lr!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(
            optimizer="rmsprop_tf" if self.form == "tf" else "rmsprop",
            optimizer_args={"alpha": self.decay, "eps": self.eps, "momentum": self.momentum},
            lr=self.lr,
        )


def first_step(gradient: float, *, decay: float, eps: float, form: str) -> float:
    """How far the first step moves a weight, in units of the learning rate.

    The optimizers have their own code; this is the equation they must agree with.

    >>> [round(first_step(g, decay=0.9, eps=1.0, form="tf"), 4) for g in (0.1, 1.0)]
    [0.0725, 0.7071]
    >>> [round(first_step(g, decay=0.9, eps=1.0, form="torch"), 4) for g in (0.1, 1.0)]
    [0.0969, 0.7597]
    """
    square = decay * (1.0 if form == "tf" else 0.0) + (1 - decay) * gradient**2
    return gradient / (math.sqrt(square + eps) if form == "tf" else math.sqrt(square) + eps)


@trick
class GradientClipping(Trick):
    """Gradient clipping: a gradient that is too long is cut before the optimizer sees it.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 8: threshold 2.0
    Equation: norm: g' = g * min(1, threshold / ||g||_2), one norm over all parameters;   value: g'_i =
        min(max(g_i, -threshold), threshold)
    Acts on: recipe (clip_norm, clip_value)
    Defaults: threshold = 2.0 (the paper); by = norm (the paper does not say which; the usual reading)
    Differs: nothing known beyond that choice.
    """

    name: ClassVar[str] = "gradient_clipping"
    threshold: float = 2.0
    by: Literal["norm", "value"] = "norm"

    def __post_init__(self) -> None:
        require(
            self.threshold > 0, f"gradient_clipping: threshold must be a number > 0, got {self.threshold!r}"
        )

    def edit_recipe(self, recipe: Any) -> Any:
        norm, value = (self.threshold, 0.0) if self.by == "norm" else (0.0, self.threshold)
        return recipe.but(clip_norm=norm, clip_value=value)


@trick
class NoBiasDecay(Trick):
    """No bias decay: weight decay acts on the weights of convolutions and linear layers only.

    Paper: he2019bag, arXiv:1812.01187, Sec. 3.1; from jia2018highly, arXiv:1807.11205 (memory);
        goyal2017accurate, arXiv:1706.02677, Sec. 5.1: gamma and beta alone
    Equation: g_p = dL/dp + wd * p where p is a matrix or a kernel; g_p = dL/dp for biases, gamma and beta
    Acts on: parameter_groups
    Defaults: exempt = all (he2019bag); norms: biases of convolutions and linear layers are decayed
        (goyal2017accurate)
    Differs: "biases, gamma and beta" is taken to be every parameter with at most one dimension, which in the
        networks here is the same set. A bias is one of a layer whose weight has more dimensions.
    """

    name: ClassVar[str] = "no_bias_decay"
    said_if_set: ClassVar[tuple[str, ...]] = ("exempt",)
    exempt: Literal["all", "norms"] = "all"

    def edit_parameter_groups(self, groups: list[ParameterGroup], model: nn.Module) -> list[ParameterGroup]:
        kept = layer_biases(model) if self.exempt == "norms" else frozenset()
        return [part for group in groups for part in split_group(group, kept)]


def split_group(group: ParameterGroup, also_decayed: frozenset[str] = frozenset()) -> list[ParameterGroup]:
    """Part a group into one that is decayed as before and one without decay; empty parts are dropped.

    >>> from types import SimpleNamespace as P
    >>> parts = split_group({"params": [("w", P(ndim=4)), ("gamma", P(ndim=1))], "weight_decay": 1e-4})
    >>> [([name for name, _ in part["params"]], part["weight_decay"]) for part in parts]
    [(['w'], 0.0001), (['gamma'], 0.0)]
    """
    decayed = [(name, p) for name, p in group["params"] if p.ndim > 1 or name in also_decayed]
    free = [(name, p) for name, p in group["params"] if p.ndim <= 1 and name not in also_decayed]
    parts: list[ParameterGroup] = [
        {**group, "params": decayed},
        {**group, "params": free, "weight_decay": 0.0},
    ]
    return [part for part in parts if part["params"]]


def layer_biases(model: nn.Module) -> frozenset[str]:
    """Names of the biases of layers whose weight is a matrix or a kernel."""
    kernels = {name.removesuffix("weight") for name, p in model.named_parameters() if p.ndim > 1}
    return frozenset(name for name, _ in model.named_parameters() if name.removesuffix("bias") in kernels)
