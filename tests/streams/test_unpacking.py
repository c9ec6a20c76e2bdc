"""Archives as data sets, and hostile ones: nothing is written before all is found to be harmless."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl.data import unpacking
from cl.data.unpacking import unpacked
from cl.errors import DataError
from streams.classes import class_incremental
from streams.datasets import load
from streams.own import arrays, folder
from tests.processes import at_once, die, killed, ordinary_user


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def pictures(inside: str = "") -> dict[str, bytes]:
    """Three classes of five pictures."""
    return {
        f"{inside}{name}/{number}.png": png(50 * label)
        for label, name in enumerate(("ant", "bee", "cat"))
        for number in range(5)
    }


def zipped(file: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in content.items():
            out.writestr(name, data)
    return file


def tarred(file: Path, content: dict[str, bytes]) -> Path:
    mode = "w:" + file.suffix.removeprefix(".").replace("tgz", "gz").replace("tar", "")
    with tarfile.open(file, mode) as out:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return file


def written(place: Path) -> set[str]:
    """All paths in the place, but for the locks."""
    paths = [path for path in place.rglob("*") if path.suffix != ".lock"]
    return {str(path.relative_to(place)) for path in paths}


@pytest.mark.parametrize(
    "name",
    ["p.zip", "p.tar", "p.tgz", "p.tar.gz", "p.tar.bz2", "p.tar.xz"],
)
@pytest.mark.parametrize("inside", ["", "photos/", "photos/2024/"])
def test_an_archive_is_read_as_its_folder(tmp_path: Path, name: str, inside: str) -> None:
    make = zipped if name.endswith("zip") else tarred
    make(tmp_path / name, {**pictures(inside), "README.txt": b"hello", f"{inside}run.sh": b"rm"})
    stream = folder(str(tmp_path / name), tasks=3, image_size=8)
    assert stream.name == "p"
    assert stream.class_names == ("ant", "bee", "cat")
    assert [len(part) for part in (*stream.train, *stream.test)] == [4, 4, 4, 1, 1, 1]
    images, _ = stream.train[2].take(np.arange(4))
    assert (images == 100).all()
    files = [
        path for path in written(tmp_path / f"{name}.unpacked") if path.endswith((".txt", ".sh"))
    ]
    assert not files, "only images are written"


def test_it_is_unpacked_once_and_again_only_by_hand(tmp_path: Path) -> None:
    file = zipped(tmp_path / "p.zip", pictures())
    folder(str(file), tasks=3)
    first = (tmp_path / "p.zip.unpacked" / "ant" / "0.png").stat().st_mtime_ns
    folder(str(file), tasks=3)
    assert (tmp_path / "p.zip.unpacked" / "ant" / "0.png").stat().st_mtime_ns == first
    zipped(file, {**pictures(), "dog/0.png": png(0), "dog/1.png": png(0)})
    with pytest.raises(DataError, match=r"has changed since .* Delete that folder"):
        folder(str(file), tasks=3)
    shutil.rmtree(tmp_path / "p.zip.unpacked")
    assert "dog" in folder(str(file), tasks=2).class_names


@pytest.mark.parametrize("name", ["p.zip", "p.tar.gz"])
def test_of_eight_processes_one_unpacks(tmp_path: Path, name: str) -> None:
    content = {f"{c}/{number}.png": png(number) for c in "abcd" for number in range(60)}
    (zipped if name == "p.zip" else tarred)(tmp_path / name, content)

    def images() -> set[str]:
        return {path for path in written(unpacked(tmp_path / name)) if path.endswith(".png")}

    assert at_once(8, images) == [set(content)] * 8
    assert {path.name for path in tmp_path.iterdir()} == {
        name,
        f"{name}.unpacked",
        f".{name}.lock",
    }


def test_eight_processes_and_a_short_folder(tmp_path: Path) -> None:
    file = zipped(tmp_path / "p.zip", pictures())
    unpacked(file)
    shutil.rmtree(tmp_path / "p.zip.unpacked" / "bee")
    assert at_once(8, lambda: len(written(unpacked(file)))) == [3 + 15 + 1] * 8


def test_what_a_killed_process_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zipped(tmp_path / "p.zip", pictures())
    with monkeypatch.context() as patch:
        patch.setattr(unpacking.shutil, "copyfileobj", die)
        killed(lambda: unpacked(file))
    (tmp_path / "p.zip.partial" / "ant").mkdir(parents=True)  # of version 0.1
    assert len(list(tmp_path.glob("*.partial"))) == 2
    unpacked(file)
    assert {path.name for path in tmp_path.iterdir()} == {
        "p.zip",
        "p.zip.unpacked",
        ".p.zip.lock",
    }


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("harm", ["deleted", "cut off"])
def test_a_short_folder_is_unpacked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str, old: bool
) -> None:
    file = zipped(tmp_path / "p.zip", pictures())
    mark = unpacked(file) / ".archive"
    if old:  # as version 0.1 wrote it
        mark.write_text(" ".join(mark.read_text().split()[:2]))
    picture = mark.with_name("bee") / "3.png"
    whole = picture.read_bytes()
    picture.unlink() if harm == "deleted" else picture.write_bytes(whole[:-1])
    assert len(folder(str(file), tasks=3).train[1]) == 4
    assert picture.read_bytes() == whole
    told = capsys.readouterr().err
    assert told.count("it is unpacked again") == 1
    count = 14 if harm == "deleted" else 15
    assert f"holds {count} images (" in told
    assert ") of 15 images (" in told
    folder(str(file), tasks=3)
    assert not capsys.readouterr().err


def test_a_whole_folder_of_version_01_is_counted_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zipped(tmp_path / "p.zip", pictures())
    mark = unpacked(file) / ".archive"
    now = mark.read_text()
    mark.write_text(" ".join(now.split()[:2]))
    monkeypatch.setattr(unpacking, "_unpack", die)
    unpacked(file)
    assert mark.read_text() == now
    monkeypatch.setattr(unpacking, "listed", die)
    unpacked(file)


@pytest.mark.parametrize("mark", ["", "12", "rubbish " * 4, "\0\0", None])
def test_a_mark_that_is_none(tmp_path: Path, mark: str | None) -> None:
    file = zipped(tmp_path / "p.zip", pictures())
    place = unpacked(file) / ".archive"
    place.unlink() if mark is None else place.write_text(mark)
    with pytest.raises(DataError, match="Delete that folder"):
        unpacked(file)


@pytest.mark.parametrize("counts", ["x y", "15 ²", "-1 -1"])
def test_counts_that_are_none_are_counted_again(tmp_path: Path, counts: str) -> None:
    file = zipped(tmp_path / "p.zip", pictures())
    mark = unpacked(file) / ".archive"
    now = mark.read_text()
    mark.write_text(" ".join([*now.split()[:2], counts]))
    unpacked(file)
    assert mark.read_text() == now


def test_an_image_that_was_not_in_the_archive(tmp_path: Path) -> None:
    file = zipped(tmp_path / "p.zip", pictures())
    (unpacked(file) / "ant" / "own.png").write_bytes(png(0))
    with pytest.raises(DataError, match=r"holds 16 images .* the archive 15 .*rename it"):
        unpacked(file)


def test_a_read_only_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for an ordinary user the folders above may be closed
    file = zipped(Path("p.zip"), pictures())
    Path().chmod(0o555)
    with ordinary_user(), pytest.raises(DataError, match=r"Copy it to a folder .* or unpack it"):
        unpacked(file)
    Path().chmod(0o755)
    unpacked(file)
    Path().chmod(0o555)
    with ordinary_user():
        assert unpacked(file) == Path("p.zip.unpacked"), "it can be read"


def test_any_stream_takes_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = zipped(tmp_path / "p.zip", pictures())
    assert len(class_incremental(f"{file}@16", tasks=3)) == 3
    monkeypatch.chdir(tmp_path)
    assert load("p.zip").class_names == ("ant", "bee", "cat")
    monkeypatch.setenv("CL_DATA_DIR", str(tmp_path))
    zipped(tmp_path / "imagenet_r.zip", pictures("imagenet-r/"))
    data = load("imagenet_r@8")
    assert (data.name, len(data.train)) == ("imagenet_r", 12)
    assert data.card is not None


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize(
    "path",
    [
        "../evil.png",
        "ant/../../evil.png",
        "/tmp/evil.png",
        "..\\evil.png",
        "C:\\evil.png",
        "C:evil.png",
    ],
)
def test_a_path_outside_is_refused(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], path: str
) -> None:
    file = tmp_path / "in" / ("p.zip" if make is zipped else "p.tar")
    file.parent.mkdir()
    make(file, {**pictures(), path: png(0)})
    before = written(tmp_path)
    with pytest.raises(DataError, match=r"leads outside. Nothing was unpacked"):
        folder(str(file))
    assert written(tmp_path) == before


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    tarred(tmp_path / "p.tar", pictures())
    with tarfile.open(tmp_path / "p.tar", "a") as out:
        info = tarfile.TarInfo("ant/9.png")
        info.type, info.linkname = kind, "/etc/passwd"
        out.addfile(info)
    with pytest.raises(DataError, match=r"'ant/9\.png' in it is a link or a device"):
        folder(str(tmp_path / "p.tar"))
    assert written(tmp_path) == {"p.tar"}


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    zipped(tmp_path / "p.zip", pictures())
    info = zipfile.ZipInfo("ant/9.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "p.zip", "a") as out:
        out.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="is a link or a device"):
        folder(str(tmp_path / "p.zip"))
    assert written(tmp_path) == {"p.zip"}


@pytest.mark.parametrize("name", ["p.zip", "p.tar.gz"])
def test_a_bomb_is_refused(tmp_path: Path, name: str) -> None:
    make = zipped if name == "p.zip" else tarred
    bomb = {f"ant/{number}.png": bytes(8 * 2**20) for number in range(12)}
    make(tmp_path / name, {**pictures(), **bomb})
    assert (tmp_path / name).stat().st_size < 200_000, "96 MB of nothing"
    with pytest.raises(
        DataError, match=r"more than 67 MB, 100 times its size.*Nothing was unpacked"
    ):
        folder(str(tmp_path / name))
    assert written(tmp_path) == {name}


def test_a_bomb_in_a_header_is_refused(tmp_path: Path) -> None:
    """The name of a file may be as long as its header says; it would be read into memory."""
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as out:
        info = tarfile.TarInfo("ant/0.png")
        info.pax_headers = {"comment": "x" * (80 * 2**20)}
        out.addfile(info)
    with pytest.raises(DataError, match="Nothing was unpacked"):
        folder(str(tmp_path / "p.tar.gz"))
    assert written(tmp_path) == {"p.tar.gz"}


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    """A file is not read past the size that was checked; then its checksum does not fit."""
    file = zipped(tmp_path / "p.zip", {"ant/0.png": bytes(2**20)})
    content = bytearray(file.read_bytes())
    size = (2**20).to_bytes(4, "little")
    assert content.count(size) == 2, "in the file's header and in the directory"
    file.write_bytes(content.replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"cannot be unpacked: Bad CRC-32"):
        folder(str(file))
    assert written(tmp_path) == {"p.zip"}


def test_more_than_the_disk_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(tmp_path / "p.zip", pictures())
    room = shutil._ntuple_diskusage(0, 0, 500)  # type: ignore[attr-defined]
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda place: room)
    with pytest.raises(DataError, match=r"the disk has 0\.0 GB left"):
        folder(str(tmp_path / "p.zip"))


def test_the_same_file_twice(tmp_path: Path) -> None:
    zipped(tmp_path / "p.zip", pictures())
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(tmp_path / "p.zip", "a") as out,
    ):
        out.writestr("ant/0.png", png(0))
    with pytest.raises(DataError, match=r"'ant/0\.png' is in it twice"):
        folder(str(tmp_path / "p.zip"))


@pytest.mark.parametrize("name", ["p.zip", "p.tar", "p.tar.gz", "p.tar.bz2", "p.tar.xz"])
def test_a_damaged_archive(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing that one could unpack" * 40)
    with pytest.raises(DataError, match=f"{name} cannot be unpacked"):
        folder(str(tmp_path / name))
    make = zipped if name == "p.zip" else tarred
    content = make(tmp_path / name, pictures()).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=f"{name} cannot be unpacked"):
        folder(str(tmp_path / name))
    assert written(tmp_path) == {name}


def test_an_archive_without_images(tmp_path: Path) -> None:
    zipped(tmp_path / "p.zip", {"notes.txt": b"hello"})
    with pytest.raises(DataError, match="there is no folder in it"):
        folder(str(tmp_path / "p.zip"))


def test_a_bomb_of_arrays(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "p.npz", images=np.zeros((9, 2**21, 4, 1), np.uint8), labels=[0])
    assert (tmp_path / "p.npz").stat().st_size < 200_000
    with pytest.raises(DataError, match="more than 67 MB, 100 times its size"):
        arrays(str(tmp_path / "p.npz"))


def test_an_array_that_lies_about_its_shape(tmp_path: Path) -> None:
    """The header of the array promises 8 exabytes; the file holds none of them."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**60, 2, 2, 1)}
    np.lib.format.write_array_header_1_0(file, header)
    zipped(tmp_path / "p.npz", {"images.npy": file.getvalue(), "labels.npy": file.getvalue()})
    with pytest.raises(DataError, match="cannot be read as arrays"):
        arrays(str(tmp_path / "p.npz"))


def test_a_name_that_is_damaged_in_the_list_alone_loses_no_image(tmp_path: Path) -> None:
    file = zipped(tmp_path / "photos.zip", pictures())
    before, _, after = file.read_bytes().rpartition(b"ant/3.png")
    file.write_bytes(before + b"ant/3.pnf" + after)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpacked(file)
    assert written(tmp_path) <= {"photos.zip"}


def test_what_is_no_image_may_be_packed_in_any_way(tmp_path: Path) -> None:
    file = zipped(tmp_path / "photos.zip", {**pictures(), "ant/": b"", "readme.txt": b"x"})
    content = bytearray(file.read_bytes())
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # an unknown compression
        content[content.rindex(signature) + place] = 99
    file.write_bytes(content)
    assert len(list(unpacked(file).rglob("*.png"))) == 15


def test_the_checksum_of_a_packed_tar_is_checked(tmp_path: Path) -> None:
    file = tarred(tmp_path / "photos.tar.gz", pictures())
    content = file.read_bytes()
    file.write_bytes(content[:-8] + bytes(4) + content[-4:])  # the checksum, before the length
    with pytest.raises(DataError, match="CRC"):
        unpacked(file)


@pytest.mark.parametrize("size", [1 << 33, None])
def test_an_odd_mark_is_not_waited_for(tmp_path: Path, size: int | None) -> None:
    file = zipped(tmp_path / "photos.zip", pictures())
    mark = unpacked(file) / ".archive"
    if size is None:
        mark.unlink()
        os.mkfifo(mark)
    else:
        os.truncate(mark, size)
    with pytest.raises(DataError, match="is damaged"):
        unpacked(file)
