"""Images by a table: CSV files of paths and labels, and folders that Hugging Face's `datasets` wrote."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from harness.cli import main
from harness.data import count_classes, load, look_at_data, missing_data, validate_data
from harness.data.contents import fingerprint
from harness.data.entry import DataSet, Files
from harness.data.floor import measure
from harness.data.pixels import decode_array
from harness.spec import DataSpec

# Made by `datasets` itself: make.py beside the folders says with which versions.
GOLDEN = Path(__file__).parents[1] / "golden" / "huggingface"


def picture(number: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def loaded(kind: str, data_dir: Path, /, **args: Any) -> DataSet:
    return load(kind, args, train_images=None, test_images=None, data_dir=data_dir)


def pets(folder: Path, lines: str, name: str = "pets.csv", images: int = 8) -> Path:
    """A CSV and `images` pictures in img/."""
    (folder / "img").mkdir(exist_ok=True)
    for number in range(images):
        (folder / "img" / f"{number}.png").write_bytes(picture(number))
    (folder / name).write_text(lines, encoding="utf-8")
    return folder / name


ROWS = [f"img/{n}.png,{'cat' if n % 2 else 'dog'},{'train' if n < 5 else 'test'}" for n in range(8)]
PLAIN = "\n".join(["path,label,split", *ROWS]) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("path,label,split", "Image Path,CLASS,Set").replace("train", "Training"),
        PLAIN.replace("img/", "img\\"),
        'note,path,label,split\n' + "".join(f'"two\nlines",{row}\n' for row in ROWS),
    ],
    ids=["plain", "bom", "semicolons", "tabs", "crlf", "other names", "backslashes", "quoted newlines"],
)  # fmt: skip
def test_a_csv_is_read_in_the_forms_that_programs_write(tmp_path: Path, text: str) -> None:
    pets(tmp_path, text)
    data = loaded("csv", tmp_path, file="pets.csv")
    assert data.classes == count_classes("csv", {"file": "pets.csv"}, tmp_path) == 2
    assert [path.name for path in data.train.images.paths] == [f"{n}.png" for n in range(5)]
    assert data.train.labels.tolist() == [1, 0, 1, 0, 1]  # cat, dog
    assert data.test.labels.tolist() == [0, 1, 0]
    box = torch.tensor([[0, 0, 9, 12]])
    whole = data.test.images.crop_resize(torch.tensor([1]), box, 12)
    assert whole.shape == (1, 3, 12, 12)
    assert look_at_data("csv", {"file": "pets.csv"}, tmp_path).problems == ()


def test_the_same_images_in_a_csv_and_in_folders_are_the_same_data(tmp_path: Path) -> None:
    pets(tmp_path, PLAIN)
    by_table = loaded("csv", tmp_path, file="pets.csv")
    for row in sorted(ROWS, key=lambda row: row.split(",")[1]):
        path, label, split = row.split(",")
        place = tmp_path / "folders" / split / label / Path(path).name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / path, place)
    by_class = "\n".join(["path,label,split", *sorted(ROWS, key=lambda row: row.split(",")[1])])
    pets(tmp_path, by_class, "sorted.csv")
    folders = loaded("imagefolder", tmp_path, folder="folders")
    assert loaded("csv", tmp_path, file="sorted.csv").fingerprint == folders.fingerprint
    assert by_table.fingerprint != folders.fingerprint  # the order is part of it


def test_a_csv_without_splits_is_split_as_it_says(tmp_path: Path) -> None:
    pets(tmp_path, "".join(f"{row.rpartition(',')[0]}\n" for row in ["path,label,split", *ROWS]))
    says = look_at_data("csv", {"file": "pets.csv"}, tmp_path).problems
    assert len(says) == 1
    assert "csv pets.csv does not say which images are the test part; `test_share: 0.2`" in says[0]
    data = loaded("csv", tmp_path, file="pets.csv", test_share=0.25)
    assert (len(data.train.labels), data.test.labels.tolist()) == (6, [0, 1])
    assert data.left_out == look_at_data("csv", {"file": "pets.csv", "test_share": 0.25}, tmp_path).notes
    assert "csv pets.csv is split: 2 of 8 images" in data.left_out[0]
    pets(tmp_path, PLAIN)
    with pytest.raises(ValueError, match=r"has splits \(train 5, test 3\), and test_share asks for another"):
        loaded("csv", tmp_path, file="pets.csv", test_share=0.5)


def test_what_is_no_mistake_is_said(tmp_path: Path) -> None:
    lines = ["img/0.png,9,train", "img/1.png,10,train", "img/2.png,10,val", "img/0.png,9,train"]
    pets(tmp_path, "\n".join(["file,class,split", *lines, "img/3.png,9,test", "img/4.png,10,test"]))
    data = loaded("csv", tmp_path, file="pets.csv", test="val")
    assert data.train.labels.tolist() == [0, 1, 0]  # 9 comes before 10
    assert data.left_out == (
        "csv pets.csv: no test image of '9'",
        "csv pets.csv: one training image only of '10'",
        "csv pets.csv: not read are the images of the splits test (2)",
        f"{tmp_path / 'pets.csv'}: 1 lines name an image that a line above names",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label,label\nimg/0.png,a,b\n", ":1: 2 columns are called 'label': rename one"),
        ("path,image,label\nx,y,a\n", ":1: 'path' and 'image' may both be the path: say which, `path: path`"),
        ("where,label\nx,a\n", ":1: no column is called as a path (image, img, images, pixels, path, ...)"),
        (PLAIN.replace("5.png,cat,test", "5.png,cat,tset"), ":7: unknown split 'tset'; did you mean 'test'?"),
        (PLAIN.replace("5.png,cat,test", "5.png,cat,"), ":7: unknown split ''"),
        (
            PLAIN.replace("png", "jpg", 4),
            ":2: 4 of 8 images are not there; paths start in {folder} (line 2 'img/0.jpg'; line 3 "
            "'img/1.jpg'; line 4 'img/2.jpg')",
        ),
        (
            PLAIN.replace(".png", ""),
            ":2: 8 of 8 images are not there; paths start in {folder}; with `suffix: .png` the first one is",
        ),
        (PLAIN.replace("img/3", "../3"), ":5: 1 of 8 paths lie outside of {folder}; `images: FOLDER` says"),
        (PLAIN.replace("3.png,cat", "3.png,"), ":5: 1 of 8 rows have no label (line 5 'img/3.png')"),
        (PLAIN.replace("img/3.png,", ","), ":5: 1 of 8 rows have no path"),
        (PLAIN.replace("img/3", "img/0"), ":5: 1 of 8 images are on a line above with another label"),
        (PLAIN.replace("img/7", "img/1"), ":9: 1 of 8 images are in two splits (line 9 'img/1.png')"),
        (PLAIN.replace("7.png,cat", "7.png,cow"), "no training image of the classes of test images 'cow'"),
        (PLAIN.replace("dog", "cat"), "has 1 classes; a classifier needs at least 2"),
        (PLAIN.replace(",test", ",val"), "of the split test; it has train 5, val 3: say `test: val`"),
        (PLAIN.replace(",train", ",test"), "no images of the split train; it has test 8"),
        (PLAIN.replace("cat", "é", 1).replace("cat", "e\u0301"), ":5: 3 of 8 labels look the same"),
        ("path,label\nimg/0.png,a,b\n", ":2: has 3 cells, the line of names has 2"),
        ('path,label\n"img/0.png,a\n', ":2: cannot be read as a row"),
        ("", ":1: is empty: its first line must name the columns"),
        ("path,label\nimg/\0.png,a\n", ":2: has a zero byte"),
    ],
    ids=[
        "two labels", "which path", "no path", "misspelt split", "empty split", "missing images", "no suffix",
        "outside", "no label", "empty path", "two classes", "two splits", "untrained class", "one class",
        "val only", "test only", "NFD", "uneven", "open quote", "empty", "zero byte",
    ],
)  # fmt: skip
def test_a_wrong_csv_is_one_sentence_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    file = pets(tmp_path, text)
    found = look_at_data("csv", {"file": "pets.csv"}, tmp_path).problems
    assert len(found) == 1
    assert says.format(folder=file.parent) in found[0]
    assert "\n" not in found[0]
    with pytest.raises(ValueError) as caught:
        loaded("csv", tmp_path, file="pets.csv")
    assert f"csv: {caught.value}" == found[0]


def test_paths_may_start_elsewhere_and_lack_their_suffix(tmp_path: Path) -> None:
    pets(tmp_path, PLAIN.replace("img/", "").replace(".png", ""))
    data = loaded("csv", tmp_path, file="pets.csv", images="img", suffix=".png")
    assert data.train.images.paths[0] == tmp_path / "img" / "0.png"
    for args, words in (
        ({}, "file must name a file of the data folder"),
        ({"file": "../pets.csv"}, "'../pets.csv' does not lie inside the data folder"),
        ({"file": "pets.xlsx"}, "file must end in one of .csv"),
        ({"file": "a.csv", "label": 3}, "label must be the name of a column, not 3"),
        ({"file": "a.csv", "test": "dev"}, "must be test or val, not 'dev'"),
        ({"file": "a.csv", "range": [2, 1]}, r"csv: range must be \[BLACK, WHITE\]"),
    ):
        with pytest.raises(ValueError, match=words):
            validate_data("csv", args)
    assert missing_data("csv", {"file": "b.csv"}, tmp_path) == f"csv needs the file {tmp_path / 'b.csv'}"


def huggingface(tmp_path: Path, name: str) -> Path:
    shutil.copytree(GOLDEN / name, tmp_path / name)
    return tmp_path


def originals(part: str) -> list[bytes]:
    names = {"train": "train-00000-of-00001", "test": "validation-00000-of-00001"}
    table = parquet.read_table(GOLDEN / "parquet" / "data" / f"{names[part]}.parquet")
    return [each["bytes"] for each in table.column("image").to_pylist()]


@pytest.mark.parametrize(("name", "args"), [("saved", {}), ("parquet", {"test": "val"})])
def test_folders_that_datasets_wrote_are_decoded_as_files_are(
    tmp_path: Path, name: str, args: dict[str, Any]
) -> None:
    folder = huggingface(tmp_path, name)
    data = loaded("huggingface", folder, folder=name, **args)
    assert (data.classes, data.train.labels.tolist()) == (3, [0, 1, 2, 0, 1, 2])
    assert data.test.labels.tolist() == [2, 1, 0]
    # A JPEG that EXIF turns, 16 bits, alpha: by the rules of docs/data.md.
    assert data.train.images.sizes(torch.arange(3)).tolist() == [[8, 6], [6, 8], [6, 8]]
    for split, part in (("train", data.train), ("test", data.test)):
        for index, content in enumerate(originals(split)):
            np.testing.assert_array_equal(part.images.pixels(index), decode_array(content))
    assert look_at_data("huggingface", {"folder": name, **args}, folder).problems == ()
    paths = [folder / str(index) for index in range(6)]
    for path, content in zip(paths, originals("train"), strict=True):
        path.write_bytes(content)
    files = Files(root=folder, paths=paths, labels=np.array([0, 1, 2, 0, 1, 2]))
    assert data.part_fingerprints[0] == fingerprint(files)


def test_a_saved_set_of_one_part_is_split_and_a_network_below_learns_from_it(tmp_path: Path) -> None:
    folder = huggingface(tmp_path, "one_part")
    says = look_at_data("huggingface", {"folder": "one_part"}, folder).problems
    assert "huggingface one_part does not say which images are the test part" in says[0]
    args = {"folder": "one_part", "test_share": 0.5}
    data = loaded("huggingface", folder, **args)
    assert (len(data.train.labels), len(data.test.labels)) == (3, 3)
    assert "is split: 3 of 6 images" in data.left_out[0]
    small = DataSpec(name="csv", args={"file": "pets.csv", "test_share": 0.25}, resolution=8)
    pets(folder, "".join(f"{row.rpartition(',')[0]}\n" for row in ["path,label,split", *ROWS]))
    assert 0 <= measure(small, folder).linear <= 100


def write(folder: Path, name: str, columns: dict[str, Any]) -> None:
    path = folder / "own" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def own(count: int, **changed: Any) -> dict[str, Any]:
    """As others write it: bytes alone, labels of text, no word of `datasets`."""
    columns = {"image": [picture(n) for n in range(count)], "label": ["ant", "bee"] * (count // 2)}
    return {name: value for name, value in (columns | changed).items() if value is not None}


def test_parquet_of_others_is_read_and_is_unpacked_again_when_it_changes(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet", own(4))
    write(tmp_path, "test.parquet", own(2))
    first = loaded("huggingface", tmp_path, folder="own")
    assert (first.classes, first.test.labels.tolist()) == (2, [0, 1])
    write(tmp_path, "test.parquet", own(2, image=[picture(7), picture(8)]))
    from harness.data import loading

    loading._loaded.clear()
    again = loaded("huggingface", tmp_path, folder="own")
    np.testing.assert_array_equal(again.test.images.pixels(0), decode_array(picture(7)))
    assert again.part_fingerprints[0] == first.part_fingerprints[0]
    assert again.part_fingerprints[1] != first.part_fingerprints[1]
    for path in (tmp_path / "own" / ".decoded").glob("test-*.bin"):
        path.write_bytes(path.read_bytes()[:-1])  # cut short: written again
    loading._loaded.clear()
    assert loaded("huggingface", tmp_path, folder="own").fingerprint == again.fingerprint


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"label": None}, "train.parquet: no column is the label: say which, `label: NAME`. Columns: image"),
        ({"target": [0, 1, 0, 1]}, "train.parquet: label and target may be the label: say which"),
        ({"label": [[0], [1], [0], [1]]}, "the column label is list<element: int64>; one whole number"),
        ({"label": [0.5, 1.0, 0.0, 1.0]}, "the column label is double; one whole number or text"),
        ({"label": [0, None, 0, 1]}, "huggingface own: 2 of 6 images have no label"),
        ({"image": ["a", "b", "c", "d"]}, "the column image is string, not the bytes of image files"),
        (
            {"image": [picture(0), b"no image", None, picture(1)]},
            "2 of 4 images cannot be read: cannot read the image file {folder}/own/train.parquet, row 1: "
            "it is not an image in a format that can be read; cannot read the image file "
            "{folder}/own/train.parquet, row 2: it is not an image in a format that can be read: it is empty",
        ),
    ],
    ids=["no label", "which label", "several labels", "fractions", "none", "paths", "bad images"],
)  # fmt: skip
def test_a_wrong_table_is_one_sentence(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    write(tmp_path, "train.parquet", own(4, **changed))
    short = {name: None if column is None else column[:2] for name, column in changed.items()}
    write(tmp_path, "validation.parquet", own(2, **(short if "label" in short or "target" in short else {})))
    with pytest.raises(ValueError) as caught:
        loaded("huggingface", tmp_path, folder="own", test="val")
    assert says.format(folder=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_one_set_that_disagree_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet", own(4))
    write(tmp_path, "test.parquet", own(2, label=[0, 1]))
    with pytest.raises(ValueError, match=r"columns or classes are not those of .*test\.parquet"):
        loaded("huggingface", tmp_path, folder="own")


def test_files_of_which_nobody_knows_the_split_are_refused(tmp_path: Path) -> None:
    for name in ("a/train-0.parquet", "b/train-0.parquet"):
        write(tmp_path, name, own(2))
    with pytest.raises(
        ValueError, match=r"files of the split train lie in a and in b; `folder:` must name one"
    ):
        loaded("huggingface", tmp_path, folder="own")
    shutil.rmtree(tmp_path / "own" / "b")
    write(tmp_path, "a/more.parquet", own(2))
    with pytest.raises(ValueError, match=r"more\.parquet does not say its split in its name, and others do"):
        loaded("huggingface", tmp_path, folder="own")
    (tmp_path / "own" / "a" / "more.parquet").write_bytes(b"PAR1 cut short")
    (tmp_path / "own" / "a" / "more.parquet").rename(tmp_path / "own" / "a" / "test.parquet")
    with pytest.raises(ValueError, match=r"test\.parquet cannot be read: "):
        loaded("huggingface", tmp_path, folder="own")
    assert "needs the folder" in (missing_data("huggingface", {"folder": "none"}, tmp_path) or "")


def shown(folder: Path, name: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    assert main(["data", name, "--data", str(folder), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_harness_data_describes_tables_and_named_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pets(tmp_path, PLAIN)
    found = shown(tmp_path, "pets.csv", capsys)
    assert {name: part["classes"] for name, part in found["parts"].items()} == {
        "train": {"cat": 2, "dog": 3},
        "test": {"cat": 2, "dog": 1},
    }
    assert found["parts"]["train"]["width"] == {"least": 12, "median": 12, "most": 12}
    (tmp_path / "img" / "1.png").write_bytes(picture(1)[:80])
    assert "img/1.png: the file is cut off" in shown(tmp_path, "pets.csv", capsys, 1)["problems"][0]
    found = shown(huggingface(tmp_path, "one_part"), "one_part", capsys)
    assert found["parts"]["all"]["modes"] == {"RGB": 4, "I;16": 1, "RGBA": 1}
    assert found["parts"]["all"]["turned_by_exif"] == 1
    assert "`test_share: 0.2`" in found["notes"][0]
    found = shown(tmp_path, "fashion_mnist", capsys)
    assert (found["parts"]["test"]["images"], found["parts"]["test"]["modes"]) == (10_000, {"L": 10_000})
    assert "mnist needs the 4 original files" in shown(tmp_path, "mnist", capsys, 1)["problems"][0]
    (tmp_path / "notes.pdf").touch()
    assert "csv: file must end in one of .csv" in shown(tmp_path, "notes.pdf", capsys, 1)["problems"][0]
    assert main(["data", "one_part", "--data", str(tmp_path)]) == 0
    assert "all: 6 images in 3 classes (2 in a class)" in capsys.readouterr().out


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = huggingface(tmp_path, "saved")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    says = look_at_data("huggingface", {"folder": "saved"}, folder).problems
    assert "needs the package pyarrow to be read: install it" in says[0]
