"""What is decoded, what is refused, and how much at once."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cl.data import decoding
from cl.data.decoding import decode, decode_all, unreadable
from cl.errors import DataError

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_postscript_never_reaches_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    def reached(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript would have been started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", reached)
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", reached)
    (tmp_path / "x.png").write_bytes(POSTSCRIPT)
    for source in (tmp_path / "x.png", POSTSCRIPT):
        with pytest.raises(DataError, match="it is damaged, or none of JPEG, PNG"):
            decode(source, 4, "x.png")


@pytest.mark.parametrize("kind", ["TGA", "PCX", "SGI", "ICO", "DDS", "PDF", "SPIDER"])
def test_other_formats_are_not_opened(kind: str) -> None:
    picture = Image.new("F" if kind == "SPIDER" else "RGB", (16, 16))
    with pytest.raises(DataError, match="none of JPEG, PNG"):
        decode(encoded(picture, kind), 4, "x.png")


@pytest.mark.parametrize("kind", [*decoding.FORMATS, *decoding.AVIF, "MPO"])
def test_the_formats_of_photographs_are(kind: str) -> None:
    picture = Image.new("RGB", (16, 12), (200, 100, 50))
    pixels = decode(encoded(picture, kind), 4, f"x.{kind}")
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 6


@pytest.mark.parametrize("kind", [*decoding.FORMATS, *decoding.AVIF, "MPO"])
def test_their_beginning_is_known(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x").write_bytes(encoded(Image.new("RGB", (16, 12)), kind))
    (tmp_path / "y").write_bytes(POSTSCRIPT)
    os.mkfifo(tmp_path / "z")
    files = [tmp_path / name for name in ("x", "y", "z", "gone")]
    assert decoding.headless(files) == files[1:]


def test_of_very_many_files_some_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "LOOKED_AT", 10)
    files = [tmp_path / str(number) for number in range(95)]
    assert decoding.headless(files) == files[::10]
    assert decoding.headless([]) == []


def test_a_pipe_and_a_device_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name, told in (("pipe", "not a file"), ("zero", "not a file"), ("folder", "folder|file")):
        with pytest.raises(DataError, match=rf"{name}\.png cannot be decoded .*{told}"):
            decode(tmp_path / f"{name}.png", 4)
    assert unreadable([tmp_path / "pipe.png", tmp_path / "zero.png"]) == [0, 1]


def png_header(width: int, height: int, depth: int = 1, kind: int = 0) -> bytes:
    """A PNG with this header and hardly any pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("width", "height", "told"),
    [
        (10_000, 9_001, "9001 pixels, more than 90 million"),
        (2**31 - 1, 2**31 - 1, "cannot be decoded"),
        (100, 0, "cannot be decoded"),
        (0, 100, "cannot be decoded"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_size_is_read_before_the_pixels(width: int, height: int, told: str) -> None:
    with pytest.raises(DataError, match=told):
        decode(png_header(width, height), 4, "x.png")


def test_a_file_without_pixels(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 4 0 255\n")
    with pytest.raises(DataError, match=r"x\.pgm cannot be decoded"):
        decode(tmp_path / "x.pgm", 4)


def test_all_threads_together_decode_few_pixels_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BUDGET", decoding._Budget(250))
    working, most = 0, 0
    lock, fit = threading.Lock(), ImageOps.fit

    def counted(*arguments: object, **named: object) -> Image.Image:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        threading.Event().wait(0.005)
        try:
            return fit(*arguments, **named)  # type: ignore[arg-type]
        finally:
            with lock:
                working -= 1

    monkeypatch.setattr(ImageOps, "fit", counted)
    content = encoded(Image.new("L", (10, 10)), "PNG")
    with ThreadPoolExecutor(8) as pool:
        monkeypatch.setattr(decoding, "_pool", lambda: pool)
        assert len(decode_all([content] * 40, 4, ["x.png"] * 40)) == 40
    assert most == 2
    assert decoding.BUDGET.left == 250


def test_an_image_that_fails_gives_its_pixels_back() -> None:
    before = decoding.BUDGET.left
    with pytest.raises(DataError):
        decode(png_header(1000, 1000), 4, "x.png")
    assert decoding.BUDGET.left == before


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_is_scaled_as_it_was_in_colour(mode: str) -> None:
    grey = np.random.RandomState(0).randint(0, 256, (37, 53), np.uint8)
    picture = Image.fromarray(grey).convert(mode)
    wanted = ImageOps.fit(picture.convert("RGB"), (16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(decode(encoded(picture, "PNG"), 16, "x.png"), np.asarray(wanted))


def ramp(largest: int = 65535) -> np.ndarray:
    return np.linspace(0, largest, 64).round().astype(np.uint16).reshape(8, 8)


def tiff(pixels: np.ndarray, order: str, bits: int = 16) -> bytes:
    """An uncompressed grey TIFF of this order of bytes and depth, as a camera writes it."""
    height, width = pixels.shape
    if bits == 12:
        pairs = pixels.reshape(-1, 2).astype(int)
        three = (pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255)
        body = np.stack(three, 1).astype(np.uint8).tobytes()
    else:
        body = pixels.astype(f"{order}u2").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(body))]
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8 + len(body))
    return start + body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("content", "largest"),
    [
        (encoded(Image.fromarray(ramp()), "PNG"), 65535),
        (encoded(Image.fromarray(ramp()), "PPM"), 65535),
        (encoded(Image.fromarray(ramp()), "TIFF"), 65535),
        (tiff(ramp(), "<"), 65535),
        (tiff(ramp(), ">"), 65535),
        (tiff(ramp(4095), "<", bits=12), 4095),
    ],
    ids=["png", "pgm", "tiff", "I;16", "I;16B", "12 bits"],
)
def test_grey_of_16_bits_is_scaled(content: bytes, largest: int) -> None:
    wanted = np.round(ramp(largest) * (255 / largest))
    assert np.array_equal(decode(content, 8, "x")[..., 0], wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_white_are_refused(dtype: type) -> None:
    content = encoded(Image.fromarray(ramp().astype(dtype)), "TIFF")
    with pytest.raises(DataError, match=rf"its pixels are {np.dtype(dtype)}.*save it with 8 bits"):
        decode(content, 8, "x.tif")
