"""Every trick, by name. To add one: its file, its import and name here, its test, its bibliography entry."""

from harness.tricks.base import Trick
from harness.tricks.bf16 import Bf16
from harness.tricks.cosine import Cosine
from harness.tricks.distillation import Distillation
from harness.tricks.ema import Ema
from harness.tricks.fp16 import Fp16
from harness.tricks.label_smoothing import LabelSmoothing
from harness.tricks.linear_lr_scaling import LinearLrScaling
from harness.tricks.mixup import Mixup
from harness.tricks.no_bias_decay import NoBiasDecay
from harness.tricks.resnet_b import ResNetB
from harness.tricks.resnet_c import ResNetC
from harness.tricks.resnet_d import ResNetD
from harness.tricks.warmup import Warmup
from harness.tricks.zero_gamma import ZeroGamma

TRICKS: dict[str, type[Trick]] = {
    trick.name: trick
    for trick in (
        LinearLrScaling,
        Warmup,
        ZeroGamma,
        NoBiasDecay,
        Fp16,
        Bf16,
        ResNetB,
        ResNetC,
        ResNetD,
        Cosine,
        LabelSmoothing,
        Mixup,
        Distillation,
        Ema,
    )
}
