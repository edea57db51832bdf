"""Every trick, by name. To add one: its file, its import and name here, its test, its bibliography entry."""

from harness.tricks.asymmetric_convolutions import AsymmetricConvolutions
from harness.tricks.auxiliary_head import AuxiliaryHead
from harness.tricks.auxiliary_loss import AuxiliaryLoss
from harness.tricks.base import Trick
from harness.tricks.batch_norm import BatchNorm
from harness.tricks.bf16 import Bf16
from harness.tricks.bn_auxiliary import BnAuxiliary
from harness.tricks.constant_warmup import ConstantWarmup
from harness.tricks.cosine import Cosine
from harness.tricks.distillation import Distillation
from harness.tricks.ema import Ema
from harness.tricks.ensemble import Ensemble
from harness.tricks.exponential_decay import ExponentialDecay
from harness.tricks.factorized_7x7 import Factorized7x7
from harness.tricks.faster_decay import FasterDecay
from harness.tricks.fine_tuning import FineTuning
from harness.tricks.fp16 import Fp16
from harness.tricks.gradient_clipping import GradientClipping
from harness.tricks.grid_reduction import GridReduction
from harness.tricks.higher_lr import HigherLr
from harness.tricks.initialisation import Initialisation
from harness.tricks.label_smoothing import LabelSmoothing
from harness.tricks.large_batch import LargeBatch
from harness.tricks.linear_lr_scaling import LinearLrScaling
from harness.tricks.mixed_ensemble import MixedEnsemble
from harness.tricks.mixup import Mixup
from harness.tricks.multi_crop import MultiCrop
from harness.tricks.no_bias_decay import NoBiasDecay
from harness.tricks.no_dropout import NoDropout
from harness.tricks.no_lrn import NoLrn
from harness.tricks.no_residual import NoResidual
from harness.tricks.raw_weights import RawWeights
from harness.tricks.receptive_field import ReceptiveField
from harness.tricks.residual_scaling import ResidualScaling
from harness.tricks.resnet_b import ResNetB
from harness.tricks.resnet_c import ResNetC
from harness.tricks.resnet_d import ResNetD
from harness.tricks.rmsprop import RmsProp
from harness.tricks.shard_shuffling import ShardShuffling
from harness.tricks.sigmoid import Sigmoid
from harness.tricks.step_decay import StepDecay
from harness.tricks.two_3x3 import Two3x3
from harness.tricks.warmup import Warmup
from harness.tricks.weaker_distortion import WeakerDistortion
from harness.tricks.weaker_l2 import WeakerL2
from harness.tricks.zero_gamma import ZeroGamma

TRICKS: dict[str, type[Trick]] = {
    trick.name: trick
    for trick in (
        LinearLrScaling,
        Warmup,
        ConstantWarmup,
        ZeroGamma,
        NoBiasDecay,
        Fp16,
        Bf16,
        LargeBatch,
        ResNetB,
        ResNetC,
        ResNetD,
        Cosine,
        LabelSmoothing,
        Mixup,
        Distillation,
        FineTuning,
        Initialisation,
        RmsProp,
        GradientClipping,
        ExponentialDecay,
        StepDecay,
        Ema,
        AuxiliaryLoss,
        AuxiliaryHead,
        BnAuxiliary,
        Factorized7x7,
        Two3x3,
        AsymmetricConvolutions,
        GridReduction,
        ReceptiveField,
        BatchNorm,
        Sigmoid,
        HigherLr,
        NoDropout,
        WeakerL2,
        FasterDecay,
        NoLrn,
        ShardShuffling,
        WeakerDistortion,
        ResidualScaling,
        NoResidual,
        MultiCrop,
        RawWeights,
        Ensemble,
        MixedEnsemble,
    )
}
