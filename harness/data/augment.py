"""Training and evaluation images for a batch: crop, resize, flip, colour, normalise; batched, counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from harness.data.entry import Images, Split

# Which box of each image is used: random area and aspect ratio while training, the centre at evaluation.


BLOCK_PIXELS = 2**16  # whose colours are changed together on a CPU
TRIES = 10  # as torchvision.transforms.v2.RandomResizedCrop
CROP_DRAWS = 2 * TRIES + 2


def random_boxes(
    sizes: np.ndarray, draws: np.ndarray, *, area: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Random boxes (B, 4) int64 (top, left, height, width) inside images of `sizes` (B, 2) (height, width).

    The rule of torchvision.transforms.v2.RandomResizedCrop (Szegedy et al. 2015, arXiv:1409.4842, Sec. 6): a
    share of the image's area ~ U(area) and a width : height ratio whose logarithm is uniform, the first of 10
    tries that fits, at a uniform place; where none fits, the largest centre box whose ratio is within
    `ratio`. draws: (B, CROP_DRAWS) in [0, 1).
    """
    height, width = (sizes[:, axis, None].astype(np.float64) for axis in (0, 1))
    share = area[0] + (area[1] - area[0]) * draws[:, :TRIES].astype(np.float64)
    low, high = np.log(ratio[0]), np.log(ratio[1])
    aspect = np.exp(low + (high - low) * draws[:, TRIES : 2 * TRIES].astype(np.float64))
    pixels = share * height * width
    widths, heights = np.rint(np.sqrt(pixels * aspect)), np.rint(np.sqrt(pixels / aspect))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    rows, first = np.arange(len(sizes)), fits.argmax(axis=1)
    h, w = heights[rows, first], widths[rows, first]
    place = draws[:, 2 * TRIES :].astype(np.float64)
    top = np.floor(place[:, 0] * (height[:, 0] - h + 1))
    left = np.floor(place[:, 1] * (width[:, 0] - w + 1))
    boxes = np.stack([top, left, h, w], axis=1).astype(np.int64)
    none = ~fits.any(axis=1)
    if none.any():
        boxes[none] = _fallback_boxes(sizes[none], ratio)
    return boxes


def _fallback_boxes(sizes: np.ndarray, ratio: tuple[float, float]) -> np.ndarray:
    """The largest centre box whose width : height ratio is within `ratio`."""
    height, width = sizes[:, 0], sizes[:, 1]
    seen = width / height
    h = np.where(seen < ratio[0], np.rint(width / ratio[0]).astype(np.int64), height)
    w = np.where(seen > ratio[1], np.rint(height * ratio[1]).astype(np.int64), width)
    return np.stack([(height - h) // 2, (width - w) // 2, h, w], axis=1)


def centre_boxes(sizes: np.ndarray, share: float) -> np.ndarray:
    """Centre squares (B, 4) int64 with side `share` times the shorter side, in whole pixels, at least 1."""
    side = np.maximum(np.rint(share * sizes.min(axis=1)).astype(np.int64), 1)
    return np.stack([(sizes[:, 0] - side) // 2, (sizes[:, 1] - side) // 2, side, side], axis=1)


# Colour changes of a batch, one coefficient per image: brightness, saturation, hue, PCA lighting noise.
#
# Brightness, saturation and hue are the operations of torchvision.transforms.v2.functional on float images.


# Krizhevsky et al. 2012 (ImageNet Classification with Deep CNNs), Sec. 4.1: principal components of
# ImageNet's RGB values on 0-255 pixels, with the numbers that MXNet and GluonCV use
# (mxnet.image.CreateAugmenter).
PCA_EIGENVALUES = np.array([55.46, 4.794, 1.148], np.float32)
PCA_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
)
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601 weights of R, G, B


def jitter(images: Tensor, coefficients: Tensor) -> Tensor:
    """Scale brightness, then saturation, then turn the hue by (c - 1) / 2 of a full turn: in place.

    images: (B, 1 or 3, H, W) in [0, 1]. coefficients: (B, 3) for brightness, saturation, hue.
    """
    brightness(images, coefficients[:, 0], out=images)
    if images.shape[1] == 1:
        return images
    saturation(images, coefficients[:, 1], out=images)
    return hue(images, (coefficients[:, 2] - 1) / 2, out=images)


def brightness(images: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """Each image (B, C, H, W) times its factor (B,), clamped to [0, 1]. `out`: where to, as in torch."""
    return torch.mul(images, factor[:, None, None, None], out=out).clamp_(0, 1)


def saturation(images: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """Blend each image (B, 3, H, W) with its grey version (0: grey, 1: unchanged), clamped to [0, 1]."""
    red, green, blue = images.unbind(1)
    grey = (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]
    return torch.lerp(grey, images, factor[:, None, None, None], out=out).clamp_(0, 1)


def hue(images: Tensor, turn: Tensor, out: Tensor | None = None) -> Tensor:
    """Turn the HSV hue of each image (B, 3, H, W) by `turn` (B,) in full turns; saturation and value stay.

    With R', G', B' the channels scaled to least 0 and largest 1, and the hue x in sixths of a turn from red,
    |x - 3| = 2 + R' - G' - B', and x < 3 where G' > B'. Back: the channel whose colour is d sixths away is
    low + chroma clamp(2 - d, 0, 1), with d = 3 - ||z| - 3| of a difference z of hues in [-6, 6].
    """
    out = torch.empty_like(images) if out is None else out
    if images.device.type != "cpu":
        return _hue_at_once(images, turn, out)
    red, green, blue = images.unbind(1)
    low = torch.minimum(red, green)
    torch.minimum(low, blue, out=low)
    chroma = torch.maximum(red, green)
    torch.maximum(chroma, blue, out=chroma).sub_(low)
    place = torch.sub(red, green).sub_(blue).add_(low)
    other = torch.clamp(chroma, min=1e-30)  # of a grey 0 is divided: its hue does not matter
    place.div_(other).add_(2)
    torch.copysign(place, torch.sub(blue, green, out=other), out=place)
    place.add_((torch.remainder(turn + 0.5, 1.0) - 0.5)[:, None, None] * 6)
    low.sub_(chroma)
    for channel, centre in ((1, -1), (2, 1)):  # green and blue, seen from cyan
        torch.sub(place, centre, out=other).abs_().sub_(3).abs_().clamp_(1, 2)
        torch.addcmul(low, chroma, other, out=out[:, channel])
    place.abs_().sub_(3).abs_().clamp_(1, 2)
    low.add_(chroma, alpha=3)
    torch.addcmul(low, chroma, place, value=-1, out=out[:, 0])
    return out


def _hue_at_once(images: Tensor, turn: Tensor, out: Tensor) -> Tensor:
    """The bits of `hue` in 28 operators for 44: fewer launches, and on a CPU three times its time."""
    device = str(images.device)
    low, high = images.aminmax(dim=1, keepdim=True)
    chroma = high.sub_(low)
    red, green, blue = images.split(1, 1)
    place = torch.sub(red, green).sub_(blue).add_(low)
    other = torch.clamp(chroma, min=1e-30)
    place.div_(other).add_(2)
    place.copysign_(torch.sub(blue, green, out=other))
    place.add_((turn + 0.5).remainder_(1.0).sub_(0.5).mul_(6)[:, None, None, None])
    base = torch.addcmul(low, chroma, constant((2.0, -1.0, -1.0), device).view(3, 1, 1))
    seen = torch.sub(place, constant((0.0, -1.0, 1.0), device).view(3, 1, 1), out=out)
    seen.abs_().sub_(3).abs_().clamp_(1, 2).mul_(constant((-1.0, 1.0, 1.0), device).view(3, 1, 1))
    return torch.addcmul(base, chroma, seen, out=out)


def pca_shift(coefficients: np.ndarray) -> np.ndarray:
    """What PCA noise adds to R, G and B of [0, 1] pixels, (B, 3), for coefficients (B, 3) ~ N(0, sigma)."""
    return (coefficients * PCA_EIGENVALUES) @ PCA_EIGENVECTORS.T / np.float32(255)


# Random numbers that are a pure function of (seed, epoch, image, draw): no generator state to save.
#
# A draw is a hash of its counter, as in counter-based generators (Salmon et al. 2011, "Parallel random
# numbers: as easy as 1, 2, 3", SC'11). The hash is the output function of SplitMix64 (Steele, Lea and Flood
# 2014, "Fast splittable pseudorandom number generators", OOPSLA'14, Fig. 16 with the constants of variant
# 13): an image's sequence is the SplitMix64 sequence that starts at a hash of (seed, epoch, stream, image).
#
# So a resumed run draws what the uninterrupted one drew, and neither the number of workers, nor the batch
# an image falls into, nor a draw that another stream needs changes anything.


GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # odd, close to 2^64 / golden ratio


def uniforms(seed: int, epoch: int, indices: np.ndarray, draws: int, stream: str) -> np.ndarray:
    """(B, draws) float32 in [0, 1), 24 random bits each, for the images at `indices` (B,) int64.

    Streams with different names are independent. The same arguments give the same bits on every platform.
    """
    hashed = _hash(_key(seed, epoch, stream), indices, draws)
    return (hashed >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def normals(seed: int, epoch: int, indices: np.ndarray, draws: int, stream: str) -> np.ndarray:
    """(B, draws) float32 standard normal draws by the Box-Muller transform of `uniforms`."""
    pairs = (draws + 1) // 2
    u = uniforms(seed, epoch, indices, 2 * pairs, stream)
    radius = np.sqrt(-2 * np.log1p(-u[:, :pairs]))  # log of 1 - u, which is never 0
    angle = np.float32(2 * np.pi) * u[:, pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :draws]


def _key(seed: int, epoch: int, stream: str) -> np.uint64:
    digest = hashlib.blake2b(f"{seed}/{epoch}/{stream}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _hash(key: np.uint64, indices: np.ndarray, draws: int) -> np.ndarray:
    images = np.asarray(indices, np.int64).astype(np.uint64)[:, None] + np.uint64(1)
    counters = np.arange(1, draws + 1, dtype=np.uint64)[None, :]
    return _mix(_mix(key + images * GOLDEN_GAMMA) + counters * GOLDEN_GAMMA)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


# Training and evaluation images for a batch: crop, flip, colour, normalise, all batched and counter-based.
#
# Paper: he2019bag, arXiv:1812.01187, Sec. 2.1: (1) random area and aspect ratio, resized to a square, (2)
# horizontal flip, (3) hue, saturation and brightness scaled by coefficients ~ U[0.6, 1.4], (4) PCA noise
# with coefficients ~ N(0, 0.1), (5) normalisation. Every draw is a pure function of (seed, epoch, image).
#
# Differs:
# - "Scale hue" has no single meaning. Here the hue is turned by (c - 1) / 2 of a full turn, i.e. by +-0.2 for
#   c ~ U[0.6, 1.4]; the authors' published code jitters brightness, contrast and saturation instead.
# - The order of the colour steps is fixed: brightness, saturation, hue.
# - A grey set (one channel) has no saturation or hue: both are exact identities there and are skipped; PCA
#   noise still tints the three equal channels.
# - Padding (Lee et al. 2015, arXiv:1409.5185; he2016deep, Sec. 4.2: 4 pixels on each side, then a random
#   crop of the image's size) is done to the normalised input of the network: what is outside the image is
#   the data set's mean colour, and pixels are those of the input. Flips come first, which is the same.
# - Evaluation cuts a centre box and resizes it once, instead of resizing the whole image and cutting then:
#   the two differ only where the antialiasing filter reaches over the edge of the box.


class AugmentLike(Protocol):
    """What is read of harness.spec.AugmentSpec."""

    @property
    def crop_area(self) -> tuple[float, float]: ...
    @property
    def crop_ratio(self) -> tuple[float, float]: ...
    @property
    def flip(self) -> float: ...
    @property
    def jitter(self) -> float: ...
    @property
    def pca_noise(self) -> float: ...
    @property
    def crop_pad(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How images are seen: side in pixels, normalisation of [0, 1] pixels, place in the random sequence."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    seed: int = 0  # not used by evaluation_images
    epoch: int = 0
    device: str = "cpu"


Work = Callable[[Tensor], tuple[Tensor, Tensor]]
Make = Callable[[Work, Tensor], tuple[Tensor, Tensor]]


def training_images(split: Split, indices: Tensor, *, spec: AugmentLike, view: View) -> Tensor:
    """Augmented images of `split` at `indices` (B,) int64 on the CPU: (B, 3, size, size) float32 on the
    device.

    An image's result depends on its index, the seed and the epoch only, not on the rest of the batch.
    """
    return training_batch(split, indices, spec=spec, view=view)[0]


def training_batch(
    split: Split, indices: Tensor, *, spec: AugmentLike, view: View, make: Make | None = None
) -> tuple[Tensor, Tensor]:
    """As `training_images`, and the labels (B,) int64 on the device: all that the device needs of this batch
    is drawn on the CPU and goes there as one copy. `make`: who calls the work on that copy, which is the same
    for every batch of one form."""
    drawn = {**draw(split.images, indices, spec=spec, view=view), "labels": split.labels[indices]}

    def work(sent: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return augmented(split.images, sent, spec=spec, view=view), sent["labels"]

    if make is None:
        return work(send(drawn, view.device))
    return make(lambda buffer: work(unpacked(buffer, drawn)), _sent(drawn, view.device))


def draw(images: Images, indices: Tensor, *, spec: AugmentLike, view: View) -> dict[str, Tensor]:
    """What `augmented` needs, on the CPU: what the images at `indices` (B,) are made of, and the random draws
    that the spec asks for."""
    which, seed, epoch = indices.numpy(), view.seed, view.epoch
    sizes = images.sizes(indices).numpy()
    draws = uniforms(seed, epoch, which, CROP_DRAWS, "crop")
    boxes = torch.from_numpy(random_boxes(sizes, draws, area=spec.crop_area, ratio=spec.crop_ratio))
    drawn = images.read(indices, boxes, view.size, view.device)
    if spec.flip > 0:
        mirrored = uniforms(seed, epoch, which, 1, "flip")[:, 0] < spec.flip
        drawn["mirrored"] = torch.from_numpy(mirrored)
    if spec.jitter > 0:
        draws = uniforms(seed, epoch, which, 3, "colour")
        drawn["jitter"] = _floats(1 + spec.jitter * (2 * draws - 1))
    shift = np.zeros((len(which), 3), np.float32)
    if spec.pca_noise > 0:
        shift = pca_shift(spec.pca_noise * normals(seed, epoch, which, 3, "pca"))
    drawn["shift"] = _floats(shift)
    if spec.crop_pad > 0:
        draws = uniforms(seed, epoch, which, 2, "pad")
        drawn["places"] = torch.from_numpy(window_places(draws, spec.crop_pad))
    return drawn


def augmented(images: Images, sent: Mapping[str, Tensor], *, spec: AugmentLike, view: View) -> Tensor:
    """(B, 3, size, size) float32 from what `draw` made, all on the device: no copy, no read-back.

    On a CPU, colours are changed a few images at a time, which stay in the cache meanwhile.
    """
    if view.device != "cpu" or images.channels == 1 or spec.crop_pad > 0:
        batch = images.cut(sent, view.size, view.device)
        batch = jitter(batch, sent["jitter"]) if spec.jitter > 0 else batch
        batch = normalise(batch, view, sent["shift"])
        return shifted(batch, sent["places"], spec.crop_pad) if spec.crop_pad > 0 else batch
    out = torch.empty(len(sent["shift"]), view.size, view.size, 3).permute(0, 3, 1, 2)
    block = max(1, BLOCK_PIXELS // view.size**2)
    planes = torch.empty(block, 3, view.size, view.size)
    offset, scale = _offset_and_scale(view, sent["shift"], view.device)
    rows, pattern, scales = out.permute(0, 2, 3, 1).flatten(2), *_patterns(offset, scale, view.size)
    for start in range(0, len(out), block):
        here = slice(start, start + block)
        some, into = {name: each[here] for name, each in sent.items()}, out[here]
        batch = images.cut(some, view.size, view.device, planes[: len(into)] if spec.jitter > 0 else into)
        batch = jitter(batch, some["jitter"]) if spec.jitter > 0 else batch
        if batch is into:
            torch.addcmul(pattern[here], rows[here], scales, out=rows[here])
        else:
            found = _scaled(batch, offset[here], scale)
            for channel in range(3):  # by numpy, in half of the time that torch takes
                into[:, channel].numpy()[...] = found[:, channel].numpy()
    return out


def evaluation_images(split: Split, indices: Tensor, *, eval_crop: float, view: View) -> Tensor:
    """The centre box of side eval_crop * shorter side, resized: (B, 3, size, size) float32 on the device.

    indices: (B,) int64 on the CPU. eval_crop: in (0, 1].
    """
    boxes = torch.from_numpy(centre_boxes(split.images.sizes(indices).numpy(), eval_crop))
    return normalise(crops_of(split.images, indices, boxes, view), view)


def crops_of(images: Images, indices: Tensor, boxes: Tensor, view: View) -> Tensor:
    """Cut and resize as `Images.crop_resize`; what the device needs goes there as one copy."""
    sent = send(images.read(indices, boxes, view.size, view.device), view.device)
    return images.cut(sent, view.size, view.device)


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the images (B, C, H, W) whose flag in `mirrored` (B,) is set, left to right."""
    if images.device.type == "cpu" and len(flags := set(mirrored.tolist())) == 1:  # one image: no second copy
        return images.flip(3) if flags.pop() else images
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def window_places(draws: np.ndarray, pad: int) -> np.ndarray:
    """Top and left (B, 2) int64 of windows in images that were padded, from draws (B, 2) in [0, 1): 0 to
    2 pad, each place equally likely."""
    return np.floor(draws.astype(np.float64) * (2 * pad + 1)).astype(np.int64)


def shifted(images: Tensor, places: Tensor, pad: int) -> Tensor:
    """Put `pad` zeros on each side of images (B, C, H, W), cut the H x W window of each at `places` (B, 2).

    >>> shifted(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[0, 2]]), 1).tolist()
    [[[[0.0, 0.0], [2.0, 0.0]]]]
    """
    height, width = images.shape[2:]
    windows = torch.nn.functional.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    rows = torch.arange(len(images), device=images.device)
    return windows[rows, :, places[:, 0], places[:, 1]]


def normalise(images: Tensor, view: View, shift: Tensor | None = None) -> Tensor:
    """(images + shift - mean) / std with three channels, in one multiply-add.

    images: (B, 1 or 3, H, W) in [0, 1]; a single channel is repeated. shift: (B, 3), per image and channel.
    """
    return _scaled(images, *_offset_and_scale(view, shift, str(images.device)))


def _offset_and_scale(view: View, shift: Tensor | None, device: str) -> tuple[Tensor, Tensor]:
    mean, scale = constant(view.mean, device), _scale(view.std, device)
    return (-mean if shift is None else shift - mean) * scale, scale


def _scaled(images: Tensor, offset: Tensor, scale: Tensor) -> Tensor:
    """offset + images * scale. offset: (3,) or (B, 3)."""
    if images.shape[1] == 3 and images.stride(1) == 1:  # channels last
        pattern, scales = _patterns(offset, scale, images.shape[3])
        rows = torch.addcmul(pattern, images.permute(0, 2, 3, 1).flatten(2), scales)
        return rows.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)
    return torch.addcmul(offset.view(-1, 3, 1, 1), images, scale.view(1, 3, 1, 1))


def _patterns(offset: Tensor, scale: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Both for each number of a row of R, G, B, R, ...: (1 or B, 1, W * 3) and (W * 3,)."""
    return offset.view(-1, 1, 3).repeat(1, 1, width), scale.repeat(width)


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


# From the CPU to the device without waiting for it: constants once per process, a batch as one copy.
#
# A copy from ordinary memory waits until the device has done all that it was given before. One from pinned
# memory does not; torch keeps that memory until the copy is made.


ALIGNED_BYTES = 16  # where each tensor begins in what is copied: enough for every type


@cache
def constant(values: tuple[float, ...], device: str) -> Tensor:
    """Float32 numbers that stay on the device. Not to be changed in place."""
    return torch.tensor(values).to(device)


@cache
def _scale(std: tuple[float, ...], device: str) -> Tensor:
    return 1 / constant(std, device)


def send(tensors: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """Tensors of the CPU on the device, in one copy that is not waited for; on the CPU themselves."""
    if torch.device(device).type == "cpu":
        return dict(tensors)
    return unpacked(_sent(tensors, device), tensors)


def _sent(tensors: Mapping[str, Tensor], device: str) -> Tensor:
    return packed(tensors, pin=device.startswith("cuda")).to(device, non_blocking=True)


def packed(tensors: Mapping[str, Tensor], *, pin: bool = False) -> Tensor:
    """The bytes of tensors of the CPU, one after the other, (N,) uint8; `pin`: in pinned memory."""
    places = _places(tensors)
    buffer = torch.empty(sum(map(_aligned, tensors.values())), dtype=torch.uint8, pin_memory=pin)
    into = buffer.numpy()
    for name, tensor in tensors.items():
        into[places[name]] = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return buffer


def unpacked(buffer: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose bytes `packed` wrote, where the buffer is now; `tensors` say types and shapes."""
    places = _places(tensors)
    return {name: buffer[places[name]].view(each.dtype).view(each.shape) for name, each in tensors.items()}


def _places(tensors: Mapping[str, Tensor]) -> dict[str, slice]:
    places: dict[str, slice] = {}
    start = 0
    for name, tensor in tensors.items():
        places[name] = slice(start, start + tensor.nbytes)
        start += _aligned(tensor)
    return places


def _aligned(tensor: Tensor) -> int:
    """Bytes up to where the next tensor may begin."""
    return -(-tensor.nbytes // ALIGNED_BYTES) * ALIGNED_BYTES


# Several views of each test image, whose predictions are averaged: 1, 10, 12 or 144 crops.
#
# Boxes are in pixels of the original image. A paper resizes the shorter side to, say, 256 and cuts 224 x
# 224: here the box with a side of 224/256 of the shorter side is cut and resized, which is one resampling
# and not two (as `harness.data.augment` does it for one crop, and with the difference stated there).
#
# - 1: the centre box.
# - 10: the four corners and the centre of the resized image, and their mirrors (krizhevsky2012imagenet,
#   Sec. 4.1; memory). Corners of the whole image: where it was first cut to its central square, as in that
#   paper, they lie further in.
# - 144: four scales, the shorter side resized to 256, 288, 320 and 352 for crops of 224; of each the left,
#   centre and right square (top, centre and bottom of a portrait); of each square its four corners, its
#   centre and the whole square; and their mirrors: 4 x 3 x 6 x 2 (szegedy2015going, Sec. 7).
# - 12: the scale 256 and the centre square of the 144: 1 x 1 x 6 x 2. szegedy2017inception (Sec. 5) evaluates
#   12 crops "as described in" szegedy2015going: six crops and their mirrors. Which scale and which square is
#   our choice; szegedy2016rethinking does not say which 12 it has.
#
# For other resolutions than 224 the scales grow in proportion. 10 crops follow the recipe's `eval_crop`; 12
# and 144 have the paper's scales whatever it is.


CROPS = (1, 10, 12, 144)
SHARES = (224 / 256, 224 / 288, 224 / 320, 224 / 352)  # side of a crop over the shorter side, per scale


def crop_boxes(sizes: np.ndarray, crops: int, *, eval_crop: float) -> np.ndarray:
    """Boxes (V, B, 4) int64 (top, left, height, width) of images of `sizes` (B, 2) (height, width).

    V is 1, 5, 6 or 72: mirrors have the same boxes. eval_crop: in (0, 1], of the shorter side.

    Raises:
        ValueError: another number of crops than those of `CROPS`.
    """
    if crops not in CROPS:
        raise ValueError(f"eval_crops must be one of {', '.join(map(str, CROPS))}, got {crops}")
    if crops == 1:
        return centre_boxes(sizes, eval_crop)[None]
    whole = np.concatenate([np.zeros_like(sizes), sizes], axis=1)
    if crops == 10:
        return np.stack(_corners_and_centre(whole, eval_crop))
    squares = _squares(sizes)
    if crops == 12:
        return np.stack(_six(squares[1], SHARES[0]))
    return np.stack([box for share in SHARES for square in squares for box in _six(square, share)])


def views(
    split: Split, indices: Tensor, crops: int, *, eval_crop: float, view: View
) -> Iterator[tuple[Tensor, int]]:
    """Each distinct view of the images at `indices` (B,) int64, and for how many of the crops it stands.

    Images are normalised, (B, 3, size, size) float32 on the device. The counts sum to `crops`; of square
    images many boxes coincide (the three squares of the 144), and are seen once.
    """
    boxes = crop_boxes(split.images.sizes(indices).numpy(), crops, eval_crop=eval_crop)
    distinct, counts = np.unique(boxes.reshape(len(boxes), -1), axis=0, return_counts=True)
    for box, count in zip(distinct, counts.tolist(), strict=True):
        images = normalise(crops_of(split.images, indices, torch.from_numpy(box.reshape(-1, 4)), view), view)
        yield images, count
        if crops > 1:
            yield images.flip(3), count


def _squares(sizes: np.ndarray) -> list[np.ndarray]:
    """Left (or top), centre and right (or bottom) square of the shorter side, each (B, 4)."""
    side = sizes.min(axis=1)
    room = sizes - side[:, None]
    ends = np.stack([side, side], axis=1)
    return [np.concatenate([offset, ends], axis=1) for offset in (np.zeros_like(room), room // 2, room)]


def _six(squares: np.ndarray, share: float) -> list[np.ndarray]:
    """Of each square the four corners, the centre and the whole."""
    return [*_corners_and_centre(squares, share), squares]


def _corners_and_centre(areas: np.ndarray, share: float) -> list[np.ndarray]:
    """Top left, top right, bottom left, bottom right and centre square inside areas (B, 4), each (B, 4); the
    side is `share` of the area's shorter one, in whole pixels, at least 1."""
    centre = centre_boxes(areas[:, 2:], share)
    place, side = areas[:, :2], centre[:, 2:]
    room = areas[:, 2:] - side
    offsets = [room * np.array(corner) for corner in ((0, 0), (0, 1), (1, 0), (1, 1))]
    return [np.concatenate([place + offset, side], axis=1) for offset in (*offsets, centre[:, :2])]


# Cut a box out of each image and resize it, for a whole batch with two matrix products.
#
# Antialiased bilinear resampling as Pillow's BILINEAR filter and torchvision.transforms.v2 with
# antialias=True do it: a triangle filter whose support grows with the down-scaling factor, weights
# normalised to sum 1, no pixel outside the box. It is separable and linear, so per image: out = Wv @ image
# @ Wh^T, with weights that are zero outside the image's box.


@cache
def _centres(side: int, device: str) -> Tensor:
    """The centres of so many pixels, (side,). Not to be changed in place."""
    return torch.arange(side, device=device) + 0.5


def resize_weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Weights (B, size, side) float32 that resize the pixels [start, start + length) of a side to `size`.

    start, length: (B,) integer, in pixels, 0 <= start and start + length <= side.
    """
    start, length = start[:, None].float(), length[:, None].float()
    scale = length / size
    width = scale.clamp(min=1.0)  # of half the triangle, in pixels
    out, pixel = _centres(size, str(start.device)), _centres(side, str(start.device))
    centre = start + scale * out
    distance = (pixel - centre[:, :, None]).div_(width[:, :, None])
    weights = distance.abs_().neg_().add_(1.0).clamp_(min=0.0)
    weights.mul_(((pixel > start) & (pixel < start + length))[:, None, :])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def crop_resize(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resize the box of each image to size x size.

    images: (B, H, W, C) uint8. boxes: (B, 4) integer (top, left, height, width), on the device of `images`.
    Returns (B, C, size, size) float32 in [0, 1].
    """
    count, height, width, channels = images.shape
    vertical = resize_weights(boxes[:, 0], boxes[:, 2], height, size)
    horizontal = resize_weights(boxes[:, 1], boxes[:, 3], width, size).mul_(1 / 255)
    rows = torch.bmm(vertical, images.reshape(count, height, width * channels).float())
    if channels > 1:
        rows = rows.view(count, size, width, channels).permute(0, 3, 1, 2)
    rows = rows.reshape(count, channels * size, width)
    return torch.bmm(rows, horizontal.transpose(1, 2)).view(count, channels, size, size)
