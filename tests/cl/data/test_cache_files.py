"""The feature cache on disk: what is not as it was written is never used."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cl.data import cache_files
from cl.data.arrays import Array
from cl.data.cache import DIGEST_BYTES, FeatureCache
from cl.data.cache_files import STALE, shrink
from tests.processes import at_once, ordinary_user

FEATURES = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
NAMES = [bytes([row]) * DIGEST_BYTES for row in range(len(FEATURES))]
CPU, META = torch.device("cpu"), torch.device("meta")
KEY, OTHER = "a" * 32, "b" * 32


class Network:
    """Counts the rows that it computes."""

    def __init__(self, features: Tensor = FEATURES) -> None:
        self.features, self.computed = features, 0

    def __call__(self, which: Array) -> Tensor:
        self.computed += len(which)
        return self.features[torch.from_numpy(which)]


def looked_up(folder: Path, key: str = KEY, features: Tensor = FEATURES) -> tuple[Tensor, int]:
    """All features as a new process has them, and how many it computed; it writes what was new."""
    cache, network = FeatureCache(1e6, folder, 1e6), Network(features)
    found = cache.lookup(key, NAMES, network, CPU)
    cache.flush()
    return found, network.computed


def written(folder: Path) -> Path:
    """The only file of a cache that was filled once."""
    looked_up(folder)
    (file,) = folder.glob("*/*.safetensors")
    return file


def flipped(whole: bytes, chance: random.Random) -> bytes:
    content = bytearray(whole)
    for _ in range(chance.choice([1, 1, 3, 50])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def cut(whole: bytes, chance: random.Random) -> bytes:
    return whole[: chance.randrange(len(whole))]


def swapped(whole: bytes, chance: random.Random) -> bytes:
    """Two pieces of the numbers change places."""
    length = chance.choice([1, 4, 16, 24])
    first = chance.randrange(len(whole) // 2, len(whole) - 2 * length)
    second = chance.randrange(first + length, len(whole) - length + 1)
    one, two = whole[first : first + length], whole[second : second + length]
    return whole[:first] + two + whole[first + length : second] + one + whole[second + length :]


def edited(whole: bytes, chance: random.Random) -> bytes:
    """Another header over the same bytes."""
    size = int.from_bytes(whole[:8], "little")
    header: dict[str, Any] = json.loads(whole[8 : 8 + size])
    one, two = chance.sample(["digests", "features", "seal"], 2)
    kind = chance.randrange(5)
    if kind == 0:
        header[one]["dtype"] = chance.choice(["I32", "F16", "F64", "BF16", "U8", "F8_E4M3", "F4"])
    elif kind == 1:
        header[one]["shape"] = chance.choice([[72], [6, 12], [12, 6, 1], [0], [-1], [2**40] * 2])
    elif kind == 2:
        header[one]["data_offsets"][chance.randrange(2)] += chance.choice([-4, 4, 2**62])
    elif kind == 3:
        header[one], header[two] = header[two], header[one]
    else:
        dtype, shape = chance.choice([("I32", [12, 6]), ("F64", [12, 3]), ("F16", [12, 12])])
        header["features"] |= {"dtype": dtype, "shape": shape}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + size :]


@pytest.mark.parametrize("mutate", [flipped, cut, swapped, edited])
def test_a_damaged_file_never_gives_other_features(tmp_path: Path, mutate: Any) -> None:
    whole, chance = written(tmp_path / "made").read_bytes(), random.Random(0)
    recomputed = 0
    for number in range(30):
        place = tmp_path / str(number) / KEY
        place.mkdir(parents=True)
        (place / "0.safetensors").write_bytes(mutate(whole, chance))
        found, computed = looked_up(place.parent)
        assert torch.equal(found, FEATURES)
        recomputed += bool(computed)
    assert recomputed >= 20, "most of them hurt"


def test_it_is_deleted_with_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path)
    for number in range(3):
        file.with_name(f"{number}.safetensors").write_bytes(file.read_bytes()[:-9])
    file.unlink()
    assert looked_up(tmp_path)[1] == len(NAMES)
    assert capsys.readouterr().err.count("3 damaged files") == 1
    assert looked_up(tmp_path)[1] == 0
    assert not capsys.readouterr().err


def test_a_file_of_version_01_has_no_seal(tmp_path: Path) -> None:
    file = written(tmp_path)
    content = load_file(file)
    save_file({name: content[name] * 2 for name in ("digests", "features")}, file)
    assert looked_up(tmp_path)[1] == len(NAMES)
    assert not file.exists()


def test_a_file_of_another_key(tmp_path: Path) -> None:
    file = written(tmp_path)
    (tmp_path / OTHER).mkdir()
    shutil.copy(file, tmp_path / OTHER / file.name)
    assert looked_up(tmp_path, OTHER, 2 * FEATURES)[1] == len(NAMES)


@pytest.mark.parametrize("other", [FEATURES.double(), FEATURES.half(), FEATURES[:, :3]])
def test_files_of_another_type_or_width_are_left_out(tmp_path: Path, other: Tensor) -> None:
    (tmp_path / KEY).mkdir()
    for number, features in enumerate((FEATURES[:4], other[4:])):
        names = b"".join(NAMES[:4] if number == 0 else NAMES[4:])
        cache_files.save(KEY, names, features, tmp_path / KEY / f"{number}.safetensors")
    found, computed = looked_up(tmp_path)
    assert torch.equal(found, FEATURES)
    assert computed == 8


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_rows_that_are_not_finite_are_computed_again(tmp_path: Path, bad: float) -> None:
    wrong = FEATURES.clone()
    wrong[[2, 7], 3] = bad
    (tmp_path / KEY).mkdir()
    cache_files.save(KEY, b"".join(NAMES), wrong, tmp_path / KEY / "0.safetensors")
    found, computed = looked_up(tmp_path)
    assert torch.equal(found, FEATURES)
    assert computed == 8, "the two, and as many as a batch has at the least"


@pytest.mark.parametrize(
    "features", [FEATURES.bfloat16(), FEATURES.half(), FEATURES.view(12, 2, 3)]
)
def test_every_type_and_shape_of_features(tmp_path: Path, features: Tensor) -> None:
    for expected in (len(NAMES), 0):
        found, computed = looked_up(tmp_path, KEY, features)
        assert torch.equal(found, features)
        assert computed == expected


def test_features_come_to_the_device_of_the_images(tmp_path: Path) -> None:
    """A file knows no device. "meta" stands for a GPU, which not every machine has."""
    looked_up(tmp_path)
    cache, network = FeatureCache(1e6, tmp_path, 1e6), Network()
    assert cache.lookup(KEY, NAMES, network, META).device == META
    assert network.computed == 0


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    found = at_once(4, lambda: looked_up(tmp_path)[0].numpy())
    assert all(np.array_equal(features, FEATURES) for features in found)
    assert looked_up(tmp_path)[1] == 0
    assert len(list(tmp_path.glob("*/*"))) == len(list(tmp_path.glob("*/*.safetensors"))) <= 4


def test_what_killed_processes_began_is_deleted_and_all_is_counted(tmp_path: Path) -> None:
    file = written(tmp_path)
    size = file.stat().st_size
    old, new = (file.with_name(f"{name * 32}.safetensors.partial") for name in "ab")
    foreign = file.with_name("my_weights.safetensors")
    for other in (old, new, foreign):
        other.write_bytes(bytes(size))
    os.utime(old, (0, file.stat().st_mtime - STALE - 60))
    shrink(tmp_path, 3 * size)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {file, new, foreign}
    shrink(tmp_path, 3 * size - 1)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {new, foreign}


def test_the_oldest_features_go_first(tmp_path: Path) -> None:
    file = written(tmp_path)
    for age in (1, 2, 3):
        older = file.with_name(f"{age:032x}.safetensors")
        shutil.copy(file, older)
        os.utime(older, (0, file.stat().st_mtime - age))
    shrink(tmp_path, 2.5 * file.stat().st_size)
    assert {path.name for path in file.parent.iterdir()} == {file.name, f"{1:032x}.safetensors"}


def test_a_folder_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path().chmod(0o555)
    with ordinary_user():
        cache = FeatureCache(1e6, Path("cache"), 1e6)
        for key in (KEY, OTHER):
            assert torch.equal(cache.lookup(key, NAMES, Network(), CPU), FEATURES)
            cache.flush()
    assert capsys.readouterr().err.count("cache.dir=cache is not used any more") == 1
    assert cache.folder is None
