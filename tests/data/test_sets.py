"""The table of data sets: what loads, what is refused, and in which words."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import DATASETS, count_classes, load, missing_data, sets, validate_data
from harness.data.entry import DataSet
from tests.data.sets import write_idx
from tests.timing import PATIENCE_S

NOWHERE = Path("no-such-folder")


def load_all(name: str, data_dir: Path = NOWHERE, **args: object) -> DataSet:
    return load(name, args, train_images=None, test_images=None, data_dir=data_dir)


def test_the_table_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, harness.data; print([m for m in ('torch', 'numpy', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_entry_is_complete() -> None:
    for name, entry in DATASETS.items():
        assert entry.name == name
        assert entry.channels in (1, 3)
        assert len(entry.mean) == len(entry.std) == 3
    assert [name for name, entry in DATASETS.items() if not entry.for_reports] == ["generated"]


def test_fashion_mnist_is_embedded_balanced_and_normalised() -> None:
    data = load_all("fashion_mnist")
    entry = DATASETS["fashion_mnist"]
    assert (len(data.train.images), len(data.test.images)) == (10_000, 10_000)
    assert (entry.train_images, entry.test_images, entry.classes) == (10_000, 10_000, data.classes)
    assert torch.bincount(data.train.labels).tolist() == [1000] * 10
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.train.images.channels == 1
    assert data.train.images.sizes(torch.tensor([3, 4])).tolist() == [[28, 28], [28, 28]]
    pixels = data.train.images.array / 255
    assert pixels.mean() == pytest.approx(data.mean[0], abs=0.005)
    assert pixels.std() == pytest.approx(data.std[0], abs=0.005)


def test_the_same_call_returns_the_same_object_and_other_subsets_other_fingerprints() -> None:
    whole = load_all("fashion_mnist")
    assert load_all("fashion_mnist", full=False) is whole
    part = load("fashion_mnist", {}, train_images=105, test_images=20, data_dir=NOWHERE)
    assert part.fingerprint != whole.fingerprint
    assert torch.bincount(part.train.labels).tolist() == [11] * 5 + [10] * 5
    assert torch.bincount(part.test.labels).tolist() == [2] * 10
    first_shirts = whole.train.images.array[whole.train.labels.numpy() == 6][:10]
    np.testing.assert_array_equal(part.train.images.array[part.train.labels.numpy() == 6], first_shirts)


@pytest.mark.parametrize(("count", "taken"), [(1, 10), (9, 10), (10_000, 10_000), (10_001, 10_000)])
def test_a_subset_has_an_image_of_every_class_and_no_more_than_there_are(count: int, taken: int) -> None:
    part = load("fashion_mnist", {}, train_images=count, test_images=None, data_dir=NOWHERE)
    assert torch.bincount(part.train.labels).tolist() == [taken // 10] * 10


def test_a_subset_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 image, not 0"):
        load("fashion_mnist", {}, train_images=0, test_images=None, data_dir=NOWHERE)


def test_corrupted_labels_are_the_same_for_everyone_and_spare_the_test_set() -> None:
    """zhang2018mixup, Sec. 3.4: a share of the training labels is replaced by uniform draws."""
    whole = load_all("fashion_mnist")
    true = whole.train.labels
    found = {share: load_all("fashion_mnist", corrupt=share) for share in (0.2, 0.5, 1.0)}
    for share, data in found.items():
        changed = (data.train.labels != true).float().mean().item()
        assert changed == pytest.approx(0.9 * share, abs=0.02)  # a tenth draws its own class again
        assert torch.equal(data.test.labels, whole.test.labels)
        np.testing.assert_array_equal(data.train.images.array, whole.train.images.array)
    some, more = (found[share].train.labels for share in (0.2, 0.5))
    assert torch.equal(more[some != true], some[some != true])  # what is wrong at 0.2 is so at 0.5
    assert torch.bincount(found[1.0].train.labels).min() > 900
    assert len({data.fingerprint for data in (whole, *found.values())}) == 4
    held = [load_all("fashion_mnist", corrupt=share, held_out=1000).test.labels for share in (0.0, 0.5)]
    assert torch.equal(*held)


def test_which_labels_are_replaced_never_changes() -> None:
    """Pinned: they are part of what a run is."""
    labels = sets.replaced_labels(np.zeros(12, np.int64), 0.5, 10)
    assert labels.tolist() == [0, 0, 5, 9, 0, 7, 3, 0, 0, 1, 8, 0]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_labels_that_are_not_replaced_are_not_in_a_runs_identity(name: str) -> None:
    """The argument came later (docs/decisions/0022): its default is frozen."""
    assert "corrupt" in DATASETS[name].said_if_set
    assert DATASETS[name].args["corrupt"] == 0


def test_a_damaged_embedded_file_is_noticed(tmp_path: Path) -> None:
    arrays = sets.read_embedded()
    arrays["test_images"] = arrays["test_images"].copy()
    arrays["test_images"][7, 3, 3] ^= 1
    damaged = tmp_path / "damaged.npz"
    np.savez(damaged, **arrays)
    with pytest.raises(ValueError, match=r"damaged\.npz is damaged: the sha256"):
        sets.read_embedded(damaged)


def test_full_fashion_mnist_is_read_from_the_original_files(tmp_path: Path) -> None:
    folder = tmp_path / "fashion_mnist"
    with pytest.raises(FileNotFoundError, match=r"needs train-images-idx3-ubyte.gz, .* full: false"):
        load_all("fashion_mnist", tmp_path, full=True)
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 256, (30, 28, 28), dtype=np.uint8)
        if name.endswith("images")
        else np.arange(30, dtype=np.uint8) % 10
        for name in sets.FILES
    }
    for name, file in sets.FILES.items():
        write_idx(folder / f"{file}.gz", arrays[name])
    data = load_all("fashion_mnist", tmp_path, full=True)
    np.testing.assert_array_equal(data.train.images.array[..., 0], arrays["train_images"])
    assert data.test.labels.tolist() == arrays["test_labels"].tolist()
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"nonsense"))
    with pytest.raises(ValueError, match="is not an IDX file"):
        sets.read_idx_files(folder)


def test_the_subset_rule_is_the_first_thousand_of_each_class_in_file_order() -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10, dtype=np.uint8), 1200))
    images = np.arange(len(labels))
    chosen = sets.balanced_subset({"train_images": images, "train_labels": labels})
    kept = chosen["train_images"]
    assert (np.diff(kept) > 0).all()
    for label in range(10):
        expected = images[labels == label][:1000]
        np.testing.assert_array_equal(kept[chosen["train_labels"] == label], expected)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("fashion_mnst", {}, "did you mean 'fashion_mnist'"),
        ("fashion_mnist", {"fulll": True}, "did you mean 'full'"),
        ("fashion_mnist", {"full": "yes"}, "full must be true or false"),
        ("fashion_mnist", {"part": "last"}, "did you mean 'last5'"),
        ("fashion_mnist", {"part": [1]}, "unknown part '[1]'"),
        ("mnist", {"binary": 1}, "mnist: binary must be true or false, not 1"),
        ("generated", {"classes": 1}, "classes must be at least 2"),
        ("generated", {"size": 0}, "size must be a whole number of at least 1"),
        ("generated", {"channels": 2}, "channels must be 1 or 3"),
        ("imagefolder", {}, "folder must name a folder"),
        ("imagefolder", {"folder": "../secret"}, "must lie inside the data folder"),
        ("imagefolder", {"folder": "x", "side": 4}, "side must be null or a number of pixels"),
        ("cifar10", {"full": True}, "unknown argument of the data set cifar10 'full'"),
        (
            "cifar10",
            {"corrupt": 20},
            "cifar10: corrupt, the share of training labels that are replaced, must",
        ),
        ("cifar100", {"corrupt": True}, "must be a number from 0 to 1, not True"),
        ("fashion_mnist", {"corrupt": -0.1}, "must be a number from 0 to 1, not -0.1"),
    ],
)
def test_bad_names_and_arguments_are_refused_in_plain_words(name: str, args: dict, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        validate_data(name, args)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("cifar10", {}, "cifar-10-python.tar.gz"),
        ("cifar100", {}, "cifar-100-python.tar.gz"),
        ("imagenet", {}, "ILSVRC2012_devkit_t12.tar.gz"),
        ("imagefolder", {"folder": "pets"}, "pets/train/cat/0001.jpg"),
        (
            "mnist",
            {},
            "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels",
        ),
        ("places365", {}, "labels of the test images are not public"),
    ],
)
def test_missing_files_are_named_with_their_place(tmp_path: Path, name: str, args: dict, words: str) -> None:
    message = missing_data(name, args, tmp_path)
    assert message is not None
    assert words in message
    assert str(tmp_path) in message
    with pytest.raises(FileNotFoundError) as caught:
        load_all(name, tmp_path, **args)
    assert str(caught.value) == message


def test_generated_pixels_are_the_same_every_time_and_carry_their_class() -> None:
    args = {"classes": 4, "size": 16, "channels": 3, "train": 64, "test": 16}
    data = load("generated", args, train_images=None, test_images=None, data_dir=NOWHERE)
    again = DATASETS["generated"].load(args, NOWHERE)
    np.testing.assert_array_equal(data.train.images.array, again.train.images)
    assert count_classes("generated", args, NOWHERE) == data.classes == 4
    means = np.stack([again.train.images[again.train.labels == label].mean(0) for label in range(4)])
    distance = ((again.test.images[:, None] - means[None]) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == again.test.labels).mean() == 1.0


def make_folder(root: Path, side: tuple[int, int] = (20, 30)) -> np.ndarray:
    """train: 3 per class, val: 2 per class, classes `ant` and `bee`. Returns the first training image."""
    rng = np.random.default_rng(0)
    first = None
    for part, count in (("train", 3), ("val", 2)):
        for label in ("ant", "bee"):
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (*side, 3), dtype=np.uint8)
                first = pixels if first is None else first
                Image.fromarray(pixels).save(root / part / label / f"{number}.png")
    assert first is not None
    return first


def test_an_image_folder_is_decoded_on_demand(tmp_path: Path) -> None:
    first = make_folder(tmp_path / "insects")
    data = load_all("imagefolder", tmp_path, folder="insects")
    assert (data.classes, len(data.train.images), len(data.test.images)) == (2, 6, 4)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.images.sizes(torch.tensor([0, 5])).tolist() == [[20, 30], [20, 30]]
    box = torch.tensor([[2, 3, 16, 16]])
    got = data.train.images.crop_resize(torch.tensor([0]), box, 16)[0]
    want = torch.from_numpy(first[2:18, 3:19].copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_files_and_arrays_agree_within_one_level(tmp_path: Path) -> None:
    from harness.data.loading import ArrayImages
    from harness.data.pixels import FileImages

    make_folder(tmp_path)
    paths = sorted((tmp_path / "train").glob("*/*.png"))
    array = np.stack([np.asarray(Image.open(path)) for path in paths])
    indices, boxes = (
        torch.arange(4),
        torch.tensor([[0, 0, 20, 30], [1, 2, 5, 7], [10, 3, 9, 20], [0, 29, 20, 1]]),
    )
    from_files = FileImages(paths).crop_resize(indices, boxes, 12)
    from_array = ArrayImages(array).crop_resize(indices, boxes, 12)
    assert (from_files - from_array).abs().max() <= 1 / 255 + 1e-6


def test_a_forked_worker_decodes_with_threads_of_its_own(tmp_path: Path) -> None:
    import os

    make_folder(tmp_path / "insects")
    images = load_all("imagefolder", tmp_path, folder="insects").train.images
    images.sizes(torch.tensor([0]))  # the parent's threads are running now
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(int(PATIENCE_S))  # threads lost in the fork would wait for ever
        os._exit(0 if images.sizes(torch.tensor([1, 2])).tolist() == [[20, 30]] * 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_pixels_for_which_the_disk_has_no_space_stay_in_memory_and_nothing_half_written_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any, array: np.ndarray, **_: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    first = make_folder(tmp_path / "insects")
    monkeypatch.setattr(np, "save", full)
    data = load_all("imagefolder", tmp_path, folder="insects", side=20)
    np.testing.assert_array_equal(data.train.images.array[0], first[:, 5:25])
    assert not list((tmp_path / "insects" / ".decoded").iterdir())


def test_an_image_folder_at_a_fixed_side_is_decoded_once(tmp_path: Path, monkeypatch) -> None:
    first = make_folder(tmp_path / "insects")
    data = load_all("imagefolder", tmp_path, folder="insects", side=20)
    np.testing.assert_array_equal(data.train.images.array[0], first[:, 5:25])
    from harness.data import imagefolder

    monkeypatch.setattr(imagefolder, "_decode_squares", lambda files, side: pytest.fail("decoded twice"))
    again = imagefolder.load_folder(tmp_path / "insects", 20)
    np.testing.assert_array_equal(again.train.images, data.train.images.array)
    assert isinstance(again.train.images, np.memmap)


def test_an_empty_class_and_an_unreadable_file_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "a")
    for path in (tmp_path / "a" / "val" / "bee").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"class 'bee': .*val/bee has no image files"):
        load_all("imagefolder", tmp_path, folder="a")
    make_folder(tmp_path / "b")
    (tmp_path / "b" / "train" / "ant" / "0.png").write_bytes(b"not a picture")
    broken = load_all("imagefolder", tmp_path, folder="b")
    with pytest.raises(ValueError, match=r"cannot read the image file .*ant/0\.png"):
        broken.train.images.sizes(torch.tensor([0]))
    whole = (tmp_path / "b" / "train" / "ant" / "1.png").read_bytes()
    (tmp_path / "b" / "train" / "ant" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot decode the image file .*ant/1\.png"):
        broken.train.images.crop_resize(torch.tensor([1]), torch.tensor([[0, 0, 20, 20]]), 8)


def test_a_class_that_only_the_test_part_has_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "a")
    (tmp_path / "a" / "val" / "wasp").mkdir()
    with pytest.raises(ValueError, match=r"classes that are not in .*wasp"):
        load_all("imagefolder", tmp_path, folder="a")


def test_imagenet_needs_its_thousand_classes(tmp_path: Path) -> None:
    make_folder(tmp_path / "imagenet")
    with pytest.raises(ValueError, match=r"has 2 class folders, ImageNet has 1000"):
        load_all("imagenet", tmp_path)


def test_cifar_is_read_through_torchvision_once_and_mapped(tmp_path: Path, monkeypatch) -> None:
    """Small files in CIFAR-10's format; torchvision's md5 check, which they cannot pass, is switched off."""
    import pickle

    from harness.data.torchvision_import import torchvision

    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for file in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        batch = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": list(range(10)) * 2}
        (folder / file).write_bytes(pickle.dumps(batch))
    with pytest.raises(ValueError, match="is incomplete or damaged"):
        load_all("cifar10", tmp_path)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(n) for n in range(10)]}))
    cifar10 = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5: True)
    data = load_all("cifar10", tmp_path)
    assert (len(data.train.images), len(data.test.images), data.classes) == (100, 20, 10)
    assert data.train.labels.tolist() == list(range(10)) * 10
    planes = batch["data"][3].reshape(3, 32, 32)
    np.testing.assert_array_equal(data.test.images.array[3], planes.transpose(1, 2, 0))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", None)  # from now on only the mapped copy can be read
    again = DATASETS["cifar10"].load({"corrupt": 0.0}, tmp_path)
    assert isinstance(again.train.images, np.memmap)
    np.testing.assert_array_equal(again.train.images, data.train.images.array)
