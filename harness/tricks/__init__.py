"""Every trick, by name. To add one: its file, its line here, its test, its bibliography entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.tricks.base import Trick


class TrickTable(MutableMapping[str, "type[Trick]"]):
    """Name -> trick. The module of a trick, which has its name, is imported when the trick is asked for: a
    study uses few of them."""

    def __init__(self, classes: Mapping[str, str]) -> None:
        """classes: name -> the class in `harness.tricks.<name>`."""
        self._tricks: dict[str, str | type[Trick]] = dict(classes)

    def __getitem__(self, name: str) -> type[Trick]:
        found = self._tricks[name]
        if isinstance(found, str):
            found = self._tricks[name] = getattr(import_module(f"harness.tricks.{name}"), found)
        return found

    def __setitem__(self, name: str, trick: type[Trick]) -> None:
        self._tricks[name] = trick

    def __delitem__(self, name: str) -> None:
        del self._tricks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tricks)

    def __len__(self) -> int:
        return len(self._tricks)

    def __contains__(self, name: object) -> bool:
        return name in self._tricks


TRICKS = TrickTable(
    {
        "linear_lr_scaling": "LinearLrScaling",
        "warmup": "Warmup",
        "constant_warmup": "ConstantWarmup",
        "zero_gamma": "ZeroGamma",
        "no_bias_decay": "NoBiasDecay",
        "fp16": "Fp16",
        "bf16": "Bf16",
        "large_batch": "LargeBatch",
        "resnet_b": "ResNetB",
        "resnet_c": "ResNetC",
        "resnet_d": "ResNetD",
        "cosine": "Cosine",
        "label_smoothing": "LabelSmoothing",
        "mixup": "Mixup",
        "distillation": "Distillation",
        "fine_tuning": "FineTuning",
        "initialisation": "Initialisation",
        "rmsprop": "RmsProp",
        "gradient_clipping": "GradientClipping",
        "exponential_decay": "ExponentialDecay",
        "step_decay": "StepDecay",
        "ema": "Ema",
        "auxiliary_loss": "AuxiliaryLoss",
        "auxiliary_head": "AuxiliaryHead",
        "bn_auxiliary": "BnAuxiliary",
        "factorized_7x7": "Factorized7x7",
        "two_3x3": "Two3x3",
        "asymmetric_convolutions": "AsymmetricConvolutions",
        "grid_reduction": "GridReduction",
        "receptive_field": "ReceptiveField",
        "batch_norm": "BatchNorm",
        "sigmoid": "Sigmoid",
        "higher_lr": "HigherLr",
        "no_dropout": "NoDropout",
        "weaker_l2": "WeakerL2",
        "faster_decay": "FasterDecay",
        "no_lrn": "NoLrn",
        "shard_shuffling": "ShardShuffling",
        "weaker_distortion": "WeakerDistortion",
        "residual_scaling": "ResidualScaling",
        "no_residual": "NoResidual",
        "multi_crop": "MultiCrop",
        "raw_weights": "RawWeights",
        "ensemble": "Ensemble",
        "mixed_ensemble": "MixedEnsemble",
    }
)
