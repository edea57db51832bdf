"""Every trick, by name. To add one: its class, its line here, its test, its bibliography entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import CodeTable

if TYPE_CHECKING:
    from harness.tricks.base import Trick

TRICKS: CodeTable[type[Trick]] = CodeTable(
    __name__,
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
    },
)
