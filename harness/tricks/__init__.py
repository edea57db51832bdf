"""Every trick, by name. To add one: its class, its line here, its test, its bibliography entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.tricks.base import Trick


class TrickTable(MutableMapping[str, "type[Trick]"]):
    """Name -> trick. Its module is imported when the trick is asked for: a study uses few of them."""

    def __init__(self, classes: Mapping[str, str]) -> None:
        """classes: name -> "module.Class", in `harness.tricks`."""
        self._tricks: dict[str, str | type[Trick]] = dict(classes)

    def __getitem__(self, name: str) -> type[Trick]:
        found = self._tricks[name]
        if isinstance(found, str):
            module, _, cls = found.partition(".")
            found = self._tricks[name] = getattr(import_module(f"harness.tricks.{module}"), cls)
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
        "linear_lr_scaling": "learning_rate.LinearLrScaling",
        "large_batch": "learning_rate.LargeBatch",
        "warmup": "learning_rate.Warmup",
        "constant_warmup": "learning_rate.ConstantWarmup",
        "cosine": "learning_rate.Cosine",
        "step_decay": "learning_rate.StepDecay",
        "exponential_decay": "learning_rate.ExponentialDecay",
        "batch_norm": "batch_norm.BatchNorm",
        "sigmoid": "batch_norm.Sigmoid",
        "higher_lr": "batch_norm.HigherLr",
        "no_dropout": "batch_norm.NoDropout",
        "weaker_l2": "batch_norm.WeakerL2",
        "faster_decay": "batch_norm.FasterDecay",
        "no_lrn": "batch_norm.NoLrn",
        "shard_shuffling": "batch_norm.ShardShuffling",
        "weaker_distortion": "batch_norm.WeakerDistortion",
        "resnet_b": "residual.ResNetB",
        "resnet_c": "residual.ResNetC",
        "resnet_d": "residual.ResNetD",
        "zero_gamma": "residual.ZeroGamma",
        "residual_scaling": "residual.ResidualScaling",
        "no_residual": "residual.NoResidual",
        "two_3x3": "inception.Two3x3",
        "asymmetric_convolutions": "inception.AsymmetricConvolutions",
        "factorized_7x7": "inception.Factorized7x7",
        "grid_reduction": "inception.GridReduction",
        "receptive_field": "inception.ReceptiveField",
        "auxiliary_head": "inception.AuxiliaryHead",
        "auxiliary_loss": "inception.AuxiliaryLoss",
        "bn_auxiliary": "inception.BnAuxiliary",
        "label_smoothing": "targets.LabelSmoothing",
        "mixup": "targets.Mixup",
        "distillation": "targets.Distillation",
        "initialisation": "optimizer.Initialisation",
        "fine_tuning": "optimizer.FineTuning",
        "rmsprop": "optimizer.RmsProp",
        "gradient_clipping": "optimizer.GradientClipping",
        "no_bias_decay": "optimizer.NoBiasDecay",
        "fp16": "optimizer.Fp16",
        "bf16": "optimizer.Bf16",
        "ema": "evaluation.Ema",
        "raw_weights": "evaluation.RawWeights",
        "multi_crop": "evaluation.MultiCrop",
        "ensemble": "evaluation.Ensemble",
        "mixed_ensemble": "evaluation.MixedEnsemble",
    }
)
