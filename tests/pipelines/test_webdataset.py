"""A row per sample of a tar, its images read where they stand; what a hostile tar holds is refused, never loaded."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pytest
from obstore.store import from_url

from pipelines.encoded import Source as Images
from pipelines.location import IMAGES, Location
from pipelines.sources import find_source
from pipelines.tables import InputTable, open_table
from skipvision.config import JobConfig
from skipvision.errors import ConfigError, InputError, StorageError


def tar(*members: tuple[str, bytes], **options: Any) -> bytes:
    with tarfile.open(fileobj=(sink := io.BytesIO()), mode="w", **options) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def opened(path: str | Path, **settings: Any) -> InputTable:
    return open_table(find_source(str(path)), JobConfig(input=str(path), output="unused", **settings))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def rows(table: InputTable) -> list[dict]:
    return pa.concat_tables(table.thin_tables()).to_pylist()


def images(table: InputTable) -> list[list[bytes | str]]:
    """What a preparing task makes of each row's images: bytes, or the code of an error."""
    source = Images([file.path for file in table.source.files], None, policy=None)
    found = (source.read([Location.of(place) for place in row[IMAGES]]) for row in rows(table))
    return [[image.code if isinstance(image, InputError) else bytes(image) for image in row] for row in found]


SAMPLES = (
    ("./cats/0001.jpg", b"one"),
    ("./cats/0001.txt", "Kätzchen".encode()),
    ("./cats/0001.json", json.dumps({"width": 3, "key": "x", "error_message": None, "tags": ["a"]}).encode()),
    ("./cats/0001.cls", b"7\n"),
    ("./cats/0002.left.png", b"left"),
    ("./cats/0002.a.png", b"a"),
    ("./cats/0002.json", b'{"width": 2.5}'),
    ("./dogs/0001.caption", b"a dog"),
    ("./dogs/._0001.jpg", b"of another system"),
    ("./dogs/0001.npy", b"\x93NUMPY"),
)


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_a_sample_is_a_row_with_its_texts_and_its_images(tmp_path, layout):
    table = opened(written(tmp_path / "a.tar", tar(*SAMPLES, format=layout)))
    first, second, third = rows(table)
    assert [first["key"], second["key"], third["key"]] == ["cats/0001", "cats/0002", "dogs/0001"]
    assert (first["txt"], first["cls"], first["width"], first["tags"]) == ("Kätzchen", 7, 3.0, ["a"])
    assert (second["txt"], second["cls"], second["width"]) == (None, None, 2.5)
    assert third["txt"] == "a dog"
    assert images(table) == [[b"one"], [b"a", b"left"], ["image_missing"]]


def test_fields_whose_names_are_taken_get_another(tmp_path):
    table = opened(written(tmp_path / "a.tar", tar(*SAMPLES)))
    assert (rows(table)[0]["json_key"], "json_error_message" in table.schema.names) == ("x", True)


def test_several_tars_are_one_input(tmp_path):
    for part in range(2):
        written(tmp_path / f"{part}.tar", tar(("1.jpg", b"%d" % part), (f"1.f{part}", b""), ("1.cls", b"1")))
    table = opened(tmp_path)
    assert images(table) == [[b"0"], [b"1"]]
    assert table.source.others == ("0.tar: 1 .f0", "1.tar: 1 .f1")


class Planted:
    """Whoever unpickles this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_named_and_never_loaded(tmp_path):
    planted = pickle.dumps(Planted(tmp_path / "was here"))
    kinds = ("pkl", "pickle", "pyd", "pth", "pt", "npy", "npz", "ten", "mp")
    members = [(f"1.{kind}", planted) for kind in kinds]
    table = opened(written(tmp_path / "a.tar", tar(("1.jpg", b"x"), *members)))
    assert images(table) == [[b"x"]]
    assert table.schema.names == ["key"]
    assert len(table.source.others) == len(kinds)
    assert os.listdir(tmp_path) == ["a.tar"]


def test_images_are_read_out_of_a_tar_in_a_store(s3):
    obstore.put(from_url(s3), "set/a.tar", tar(*SAMPLES))
    assert images(opened(f"{s3}/set")) == [[b"one"], [b"a", b"left"], ["image_missing"]]


def test_an_image_that_claims_too_much_is_not_read(tmp_path):
    table = opened(written(tmp_path / "a.tar", tar(("1.jpg", bytes((64 << 20) + 1)), ("2.jpg", b"x"))))
    assert images(table) == [["image_too_large"], [b"x"]]


def test_a_tar_that_is_gone_when_its_images_are_read_stops_the_job(tmp_path):
    table = opened(written(tmp_path / "a.tar", tar(("1.jpg", b"x"))))
    source = Images([str(tmp_path / "gone.tar")], None, policy=None)
    with pytest.raises(StorageError, match=r"gone\.tar cannot be read"):
        source.read([Location.of(place) for place in rows(table)[0][IMAGES]])


def special(kind: bytes, name: str = "1.jpg", **values: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    for attribute, value in values.items():
        setattr(info, attribute, value)
    with tarfile.open(fileobj=(sink := io.BytesIO()), mode="w", format=tarfile.GNU_FORMAT) as file:
        file.addfile(info)
    return sink.getvalue()


GOOD = tar(("1.jpg", b"x" * 2000), ("2.jpg", b"y" * 2000))
EMPTY = tar()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tar(("../1.jpg", b"x")), "leads out of it"),
        (tar(("a/../../1.jpg", b"x")), "leads out of it"),
        (tar(("/etc/1.jpg", b"x")), "leads out of it"),
        (special(tarfile.SYMTYPE, linkname="/etc/passwd"), "no plain file"),
        (special(tarfile.LNKTYPE, linkname="/etc/passwd"), "no plain file"),
        (special(tarfile.FIFOTYPE), "no plain file"),
        (special(tarfile.CHRTYPE, devmajor=1, devminor=5), "no plain file"),
        (special(tarfile.GNUTYPE_SPARSE), "no plain file"),
        (special(tarfile.REGTYPE, size=2**40), "claims what is not there"),
        (special(tarfile.REGTYPE, size=-512), "claims what is not there"),
        (special(tarfile.XHDTYPE, size=2**40), "larger than any should be"),
        (special(tarfile.XHDTYPE, size=-512), "larger than any should be"),
        (special(tarfile.GNUTYPE_LONGNAME, size=2**40), "larger than any should be"),
        (special(tarfile.XHDTYPE) * 3000, "cannot be read"),
        (GOOD[:1000], "cut short"),
        (GOOD[:3072], "cut short"),
        (GOOD[:4000], "cut short"),
        (GOOD[: len(GOOD) // 512 * 512 - 10240 + 1024], "cut short"),
        (GOOD[:2560] + b"\xff" * 512 + GOOD[3072:], "damaged at byte 2560"),
        (GOOD + GOOD, "more tars follow"),
        (GOOD[:512].ljust(512, b"\0"), "cut short"),
        (b"\x1f\x8b" + bytes(1022), "cannot be read"),
        (b"", "cannot be read"),
        (tar(("1.jpg", b"x"), ("2.jpg", b"x"), ("1.txt", b"x")), "sample '1' twice"),
        (tar(("1.jpg", b"x"), ("1.jpg", b"y")), "file of sample '1' twice"),
        (tar(("1.txt", b"x"), ("1.caption", b"y")), "two texts for column 'txt'"),
        (tar(("1.json", b"{oops")), "1.json in .* is not JSON"),
        (tar(("1.json", b"[" * 200_000)), "1.json in .* is not JSON"),
        (tar(("1.json", b"[1]")), "not a JSON object"),
        (tar(("1.txt", b"\xff")), "not UTF-8"),
        (tar(("1.txt", bytes((16 << 20) + 1))), "larger than 16777216 bytes"),
        (tar(("1.json", b'{"n": 1}'), ("2.json", b'{"n": "x"}')), "does not hold values of one type"),
    ],
)
def test_a_hostile_or_damaged_tar_is_refused_with_its_name(tmp_path, content, says):
    with pytest.raises(ConfigError, match=says) as refusal:
        opened(written(tmp_path / "a.tar", content))
    assert "a.tar" in str(refusal.value)
    assert os.listdir(tmp_path) == ["a.tar"]


def test_a_tar_without_samples_has_no_rows(tmp_path):
    assert [len(table) for table in opened(written(tmp_path / "a.tar", EMPTY)).thin_tables()] == []


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
def test_a_packed_tar_is_refused_with_the_remedy(tmp_path, name):
    written(tmp_path / name, b"")
    for asked in (tmp_path, tmp_path / name):
        with pytest.raises(ConfigError, match=r"packed tar.*unpack it"):
            find_source(str(asked))


def test_an_image_column_of_a_tar_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="images of a tar are files in it"):
        opened(written(tmp_path / "a.tar", GOOD), image_column="jpg")
