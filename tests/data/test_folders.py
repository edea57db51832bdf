"""Image folders: which files belong to a class, what is left out, and which folders make no data set."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cli import main
from harness.data import DATASETS, arrays, folders, load, look_at_data, missing_data, validate_data
from harness.data.contents import examine
from harness.data.folders import SYSTEM_FOLDERS, part_of, parts_of, spelt, walk
from harness.data.torchvision_import import torchvision
from tests.data.pictures import tiff_bytes
from tests.end_to_end.test_json import PAGE, documented, emitted, is_kind

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def picture(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return path


def make(root: Path, train: tuple[str, ...] = ("ant", "bee"), val: tuple[str, ...] = ("ant", "bee")) -> Path:
    number = 0
    for part, names, count in (("train", train, 3), ("val", val, 2)):
        for name in names:
            for index in range(count):
                number += 1
                picture(root / part / name / f"{index}.png", number)
    return root


def look(root: Path, **args: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = look_at_data("imagefolder", {"folder": root.name, **args}, root.parent)
    return found.problems, found.notes


def test_sub_folders_of_a_class_are_read_in_torchvisions_order(tmp_path: Path) -> None:
    root = make(tmp_path / "a")
    for name in ("session/2.png", "session/1.PNG", "session-b/1.png", "session/deep/er/0.jpeg", "10.png"):
        picture(root / "train" / "ant" / name)
    elsewhere = picture(tmp_path / "pool" / "linked.png").parent
    (root / "train" / "bee" / "link").symlink_to(elsewhere)
    theirs = torchvision.datasets.ImageFolder(str(root / "train"))
    data = load("imagefolder", {"folder": "a"}, train_images=None, test_images=None, data_dir=tmp_path)
    ours = list(zip(map(str, data.train.images.paths), data.train.labels.tolist(), strict=True))
    assert ours == theirs.samples
    assert len(ours) == 12


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    root = make(tmp_path / "a")
    for name in ("web1.gif", "web2.GIF", "notes.txt", "._0.png", ".cache/0.png", "@eaDir/0.png", "README"):
        picture(root / "train" / "ant" / name)
    (root / "train" / "bee" / "round").symlink_to(root / "train")
    picture(root / "train" / "loose.png")
    assert walk(root / "train" / "ant").images == [str(root / "train" / "ant" / f"{n}.png") for n in range(3)]
    problems, notes = look(root)
    assert problems == ()
    assert notes == (
        "a/train: 6 images; 9 left out: 2 .gif, 2 hidden, 1 .txt, 1 a link to a folder around it, "
        "1 in a system's folder, 1 in no class folder, 1 no suffix (for example ant/web1.gif)",
    )
    data = load("imagefolder", {"folder": "a"}, train_images=None, test_images=None, data_dir=tmp_path)
    assert data.left_out == notes


@pytest.mark.parametrize("name", sorted(SYSTEM_FOLDERS))
def test_folders_of_systems_are_no_classes(name: str, tmp_path: Path) -> None:
    root = make(tmp_path / "a")
    picture(root / "train" / name / "ant" / "0.png")
    train, _ = parts_of(root)
    assert list(train.classes) == ["ant", "bee"]
    assert train.everything().left_out == {"in a system's folder": [str(root / "train" / name)]}


def broken_link(root: Path) -> str:
    (root / "train" / "ant" / "annex.png").symlink_to("/nowhere/objects/xx.png")
    return "train/ant/annex.png: it is a link to /nowhere/objects/xx.png, which does not exist (1 in "


def broken_class(root: Path) -> str:
    (root / "train" / "wasp").symlink_to("/nowhere/wasp")
    return "train/wasp is a link to /nowhere/wasp, which does not exist"


def pipe(root: Path) -> str:
    os.mkfifo(root / "val" / "bee" / "pipe.png")
    return "val/bee/pipe.png: it is no plain file (1 in "


def only_gifs(root: Path) -> str:
    for path in (root / "train" / "ant").iterdir():
        path.rename(path.with_suffix(".gif"))
    return "train/ant has no image files, but files left out: 3 .gif; read are .bmp .jpeg .jpg"


def flat(root: Path) -> str:
    for path in list((root / "val").glob("*/*")):
        path.rename(root / "val" / f"{path.parent.name}{path.name}")
    for folder in ("ant", "bee"):
        (root / "val" / folder).rmdir()
    return "val has no class folders, but 4 files; "


def floats(root: Path) -> str:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    (root / "train" / "ant" / "f.tif").write_bytes(tiff_bytes(values, 1))
    return "f.tif: it has floating-point pixels (mode F), here 0 to 1, and nothing says which number is black"


@pytest.mark.parametrize("spoil", [broken_link, broken_class, pipe, only_gifs, flat, floats])
def test_a_folder_that_no_run_could_read_is_refused_when_planning(spoil, tmp_path: Path) -> None:
    root = make(tmp_path / "a")
    words = spoil(root)
    problems, _ = look(root)
    assert len(problems) == 1
    assert words in problems[0]
    if spoil is floats:  # is found by the worker when the image is read
        assert look(root, range=(0, 1)) == ((), ())
        return
    with pytest.raises(ValueError) as caught:
        load("imagefolder", {"folder": "a"}, train_images=None, test_images=None, data_dir=tmp_path)
    assert str(caught.value) in problems[0]


def test_a_folder_without_rights_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "a")
    real = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("harness.data.folders.os.scandir", refusing)
    assert "train/bee: the folder cannot be read: Permission denied (1 in " in look(root)[0][0]


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        (("a", "b", "c"), ("a", "c"), "val has no folder for b of "),
        (("a", "b"), ("a", "b", "z"), "val has classes that are not in "),
        (("Cat", "Dog"), ("cat", "dog"), "train: cat, dog; "),
        (("a",), ("a",), "train has 1 class folders; a classifier needs at least 2"),
        (
            (NFC, NFD),
            (NFC,),
            f"look the same: '{NFD}' (c a f e U+0301) and '{NFC}' (c a f U+00E9); rename one",
        ),
        (("cat", "dog"), ("с\u0430t", "dog"), "train: 'саt' (U+0441 U+0430 t); "),
    ],
    ids=["a class less", "a class more", "other case", "one class", "twins", "letters that look the same"],
)
def test_other_classes_in_the_two_parts_are_said(
    train: tuple[str, ...], val: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    problems, _ = look(make(tmp_path / "a", train, val))
    assert len(problems) == 1
    assert words in problems[0]


def test_one_name_in_two_spellings_of_unicode_is_one_class(tmp_path: Path) -> None:
    root = make(tmp_path / "a", (NFC, "thé"), (NFD, "thé"))
    assert look(root) == ((), ())
    data = load("imagefolder", {"folder": "a"}, train_images=None, test_images=None, data_dir=tmp_path)
    assert (data.classes, data.test.labels.tolist()) == (2, [0, 0, 1, 1])
    assert spelt(NFD) == f"'{NFD}' (c a f e U+0301)"


def scans(root: Path, most: int) -> Path:
    for part in ("train", "val"):
        for name in ("bright", "dark"):
            (root / part / name).mkdir(parents=True)
            values = np.random.default_rng(0).integers(0, most, (8, 8)).astype(np.uint16)
            Image.fromarray(values).save(root / part / name / "0.png")
    return root


def test_12_bits_in_16_are_said_with_the_range_seen(tmp_path: Path) -> None:
    root = scans(tmp_path / "a", 4096)
    _, notes = look(root)
    assert len(notes) == 1
    assert "lie in " in notes[0]
    assert "at most 17 of 256 grey levels; `range: [0, 4095]` of the data set uses them all" in notes[0]
    assert look(root, range=(0, 4095)) == ((), ())
    assert look(scans(tmp_path / "b", 65536)) == ((), ())


def test_a_range_that_no_file_uses_is_said(tmp_path: Path) -> None:
    assert "range is of no effect" in look(make(tmp_path / "a"), range=(0, 4095))[1][0]


def add(root: Path) -> None:
    picture(root / "train" / "ant" / "9.png")


def take_away(root: Path) -> None:
    (root / "val" / "bee" / "deep" / "0.png").unlink()


def rename(root: Path) -> None:
    (root / "train" / "ant" / "deep").rename(root / "train" / "ant" / "deeper")


def add_a_class_to_both(root: Path) -> None:
    for part in ("train", "val"):
        picture(root / part / "wasp" / "0.png")


def make_another_evaluation_part(root: Path) -> None:
    (root / "val").rename(root / "test")


@pytest.mark.parametrize("edit", [add, take_away, rename, add_a_class_to_both, make_another_evaluation_part])
def test_a_folder_is_listed_once_until_a_name_in_it_changes(
    edit: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "FEWEST_KEPT", 1)
    monkeypatch.setattr(folders, "RACY_NS", -(10**18))  # folders that were just made count as old
    root = make(tmp_path / "insects")
    for part in ("train", "val"):
        picture(root / part / "bee" / "deep" / "0.png")
        picture(root / part / "ant" / "deep" / "\udcff.png", 1)
        (root / part / "ant" / "notes.txt").write_text("no image")
    first = folders.parts_of(root)
    with monkeypatch.context() as patch:
        patch.setattr(folders, "walk", lambda folder: pytest.fail(f"{folder} was listed again"))
        assert folders.parts_of(root) == first
    edit(root)
    now = folders.parts_of(root)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "empty"))
    assert now == folders.parts_of(root) != first


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0\xff", b'{"format": 1}'])
def test_a_damaged_listing_or_one_of_a_folder_just_changed_is_made_anew(
    damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "FEWEST_KEPT", 1)
    root = make(tmp_path / "insects")
    listed: list[Path] = []
    walk = folders.walk
    monkeypatch.setattr(folders, "walk", lambda folder: listed.append(folder) or walk(folder))
    first = folders.parts_of(root)
    assert folders.parts_of(root) == first
    assert len(listed) == 8  # the folders are younger than two seconds
    monkeypatch.setattr(folders, "RACY_NS", -(10**18))
    (kept,) = (tmp_path / "cache" / "listings").iterdir()
    kept.write_bytes(damage)
    assert folders.parts_of(root) == first
    assert len(listed) == 12
    assert folders.parts_of(root) == first
    assert len(listed) == 12


def study(folder: Path, name: str) -> str:
    text = (Path(__file__).parents[1] / "end_to_end" / "tiny.yaml").read_text()
    text = re.sub(r"data: \w+", f"data: {{imagefolder: {{folder: {name}}}}}", text, count=1)
    text = re.sub(r"(train|test)_images: \d+,? ?", "", text)
    (folder / "s.yaml").write_text(text)
    return str(folder / "s.yaml")


def test_plan_and_run_say_what_is_left_out_and_refuse_other_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path / "pets")
    picture(root / "train" / "ant" / "web.gif")
    file, data = study(tmp_path, "pets"), ["--data", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert main(["plan", file, "--json", *data]) == 0
    found = json.loads(capsys.readouterr().out)
    notes = ["pets/train: 6 images; 1 left out: 1 .gif (for example ant/web.gif)"]
    assert (found["missing_data"], found["data_notes"][:1]) == ([], notes)
    assert main(["plan", file, *data]) == 0
    assert f"data: {notes[0]}" in " ".join(capsys.readouterr().out.split())
    (root / "val" / "wasp").mkdir()
    assert main(["run", file, *data]) == 2
    assert "val has classes that are not in" in capsys.readouterr().err


def test_a_look_at_a_folder_is_what_the_page_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path / "pets")
    picture(root / "train" / "ant" / "web.gif")
    picture(root / "val" / "ant" / "twin.png", 1)
    whole = picture(root / "train" / "bee" / "cut.png").read_bytes()
    (root / "train" / "bee" / "cut.png").write_bytes(whole[:200])
    assert main(["data", "pets", "--data", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    keys = documented(PAGE.read_text(), "data FOLDER")
    pairs = list(emitted(found, keys))
    assert {name for name, _ in pairs} == set(keys)
    assert [name for name, value in pairs if not is_kind(value, keys[name])] == []
    train = found["parts"]["train"]
    assert (train["images"], train["classes"], train["modes"]) == (7, {"ant": 3, "bee": 4}, {"RGB": 6})
    assert train["width"] == {"least": 10, "median": 10, "most": 10}
    assert train["left_out"][".gif"]["files"] == 1
    assert "bee/cut.png" in train["unreadable"]["examples"][0]
    assert found["in_both_parts"] == [str(root / "val" / "ant" / "twin.png")]
    assert main(["data", str(root), "--data", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "train: 7 images in 2 classes (3..4, median 3.5 in a class)" in said
    assert "problem: cannot " in said
    assert "cut.png" in said


def test_a_folder_of_classes_without_parts_is_looked_at_too(tmp_path: Path) -> None:
    make(tmp_path / "a")
    found = examine(tmp_path / "a" / "train")
    assert found["parts"]["train"]["classes"] == {"ant": 3, "bee": 3}
    assert (found["problems"], len(found["notes"])) == ([], 1)
    assert "has no val or test or validation in" in found["notes"][0]
    assert "`test_share: 0.2` holds a fifth of each class out" in found["notes"][0]
    assert part_of(tmp_path / "a" / "train", ["ant"]).images == 3
    assert "needs one folder per class" in examine(tmp_path / "a" / "train" / "ant")["problems"][0]


def split(root: Path, **args: object) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Names of training and test files, and what is said of them."""
    whole = {"folder": root.name, "test_share": 0.4, **args}
    data = load("imagefolder", whole, train_images=None, test_images=None, data_dir=root.parent)
    parts = (part.images.paths for part in (data.train, data.test))
    train, test = ([path.relative_to(root).as_posix() for path in part] for part in parts)
    return train, test, data.left_out


@pytest.mark.parametrize("below", ["train", "."])
def test_a_folder_without_a_test_part_is_split_as_it_says(
    tmp_path: Path, below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "pets"
    names = [f"{name}/{index}.png" for name in ("ant", "bee") for index in range(5)] + ["cow/0.png"]
    for number, name in enumerate(names):
        picture(root / below / name, number)
    train, test, said = split(root)
    held = arrays.stratified(np.repeat([0, 1, 2], [5, 5, 1]), 0.4, 0)
    assert [name.removeprefix("train/") for name in test] == [names[i] for i in held.nonzero()[0]]
    assert sorted(train + test) == sorted(
        (root / below / name).relative_to(root).as_posix() for name in names
    )
    assert len(test) == 4
    sentence = (
        "imagefolder pets is split: 4 of 11 images, 0.4 of each class drawn by split_seed 0, are the test "
        "part of every run; 1 of its classes have one image each, which is trained on"
    )
    assert said == (sentence,)
    assert look(root, test_share=0.4) == ((), (sentence,))
    assert split(root, split_seed=2)[1] != test
    small = {"folder": "pets", "test_share": 0.4, "side": 8}
    at_side = load("imagefolder", small, train_images=None, test_images=None, data_dir=tmp_path)
    assert (len(at_side.test.labels), at_side.left_out) == (4, said)
    file = study(tmp_path, "pets, test_share: 0.4")
    assert main(["plan", file, "--data", str(tmp_path), "--runs", str(tmp_path / "runs")]) == 0
    assert "pets is split: 4 of 11 images" in " ".join(capsys.readouterr().out.split())
    picture(root / "val" / "ant" / "0.png")
    problems, _ = look(root, test_share=0.4)
    assert problems == (
        f"{root / 'val'} is there, and test_share asks for another test part: take one of the two away",
    )


def test_nothing_is_split_unasked_and_validation_is_a_test_part(tmp_path: Path) -> None:
    root = make(tmp_path / "pets")
    (root / "val").rename(root / "validation")
    assert look(root) == ((), ())
    assert missing_data("imagefolder", {"folder": "pets"}, tmp_path) is None
    (root / "validation").rename(root / "elsewhere")
    says = missing_data("imagefolder", {"folder": "pets"}, tmp_path)
    assert says is not None
    assert "imagefolder pets has no val or test or validation in" in says
    assert "`test_share: 0.2`" in says
    for wrong in (0, 1, "a fifth", True):
        with pytest.raises(ValueError, match="imagefolder: test_share must be a number between 0 and 1"):
            validate_data("imagefolder", {"folder": "pets", "test_share": wrong})


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pets", "--data", str(tmp_path)]) == 2
    assert "pets: no such folder, file or data set, here or in " in capsys.readouterr().err


def arm_of(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str) -> tuple[str, dict[str, object]]:
    file = study(tmp_path, "pets" + options)
    assert main(["plan", file, "--json", "--data", str(tmp_path), "--runs", str(tmp_path / "runs")]) == 0
    arms = json.loads(capsys.readouterr().out)["arms"]
    arm_id = min(arms)
    return " ".join(sorted(arms)), arms[arm_id]["recipe"]["data"]["args"]


def test_later_arguments_are_in_a_runs_identity_only_where_they_are_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "pets")
    plain, args = arm_of(tmp_path, capsys, "")
    assert args == {"folder": "pets", "side": None}
    assert arm_of(tmp_path, capsys, ", background: [255, 255, 255], range: null") == (plain, args)
    black, args = arm_of(tmp_path, capsys, ", background: [0, 0, 0]")
    assert (black != plain, args["background"]) == (True, [0, 0, 0])
    ranged, args = arm_of(tmp_path, capsys, ", range: [0, 4095]")
    assert (ranged not in (plain, black), args["range"]) == (True, [0, 4095])
    split, args = arm_of(tmp_path, capsys, ", test_share: 0.4, split_seed: 0")
    assert (split not in (plain, black), args["test_share"]) == (True, 0.4)
    assert DATASETS["imagefolder"].said_if_set == {"range", "background", "test_share", "split_seed"}
    assert DATASETS["imagefolder"].args["range"] is None
    assert DATASETS["imagefolder"].args["background"] == (255, 255, 255)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"range": [5, 5]}, "range must be [BLACK, WHITE], e.g. [0, 4095], not [5, 5]"),
        ({"range": [0, float("nan")]}, "range must be [BLACK, WHITE]"),
        ({"range": 4095}, "range must be [BLACK, WHITE]"),
        ({"range": ["0", "1"]}, "range must be [BLACK, WHITE]"),
        ({"background": [0, 0, 256]}, "background must be a colour [RED, GREEN, BLUE] of 0..255"),
        ({"background": "white"}, "background must be a colour"),
        ({"background": [0, 0]}, "background must be a colour"),
        ({"background": [True, 0, 0]}, "background must be a colour"),
    ],
    ids=["empty", "nan", "one number", "text", "too bright", "a name", "two", "a truth value"],
)
def test_other_ranges_and_backgrounds_are_refused(args: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        validate_data("imagefolder", {"folder": "a", **args})
