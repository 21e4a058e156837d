"""Mutated image files of every format: refused in one line, or read as an independent decoder does and written again.

    python tests/fuzz.py [COUNT] [SEED]        (`make fuzz` runs 5,000)

Reports tracebacks, hangs, memory beyond the limit and silent garbage; culprits are saved in the folder fuzz-findings.
"""

import io
import os
import random
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

from frfsr import cli
from frfsr.errors import UserError
from frfsr.imageio import WRITE_FORMATS, Photo, read_photo, write_photo
from frfsr.imageio.photo import to_8_bit, turn_upright
from frfsr.imageio.write import LONGEST_SIDE

FINDINGS = Path("fuzz-findings")
GOOD = "refused", "read", "compared", "warned"
MAX_PIXELS = 2**22  # a limit of 34 MB decoded
SLOWEST = 10.0  # seconds
MOST_MEMORY = 1024  # MiB above the beginning
CLOSE = 3  # of 255: lossy decoders differ by their arithmetic
Mutation = Callable[[bytearray, random.Random], None]


class Tally(NamedTuple):
    """Counts by outcome, and what went wrong."""

    outcomes: Counter
    findings: list[str]


def seeds() -> dict[str, bytes]:
    """Return small real files of every format, depth and compression, by name."""
    y, x = np.mgrid[:48, :64]
    smooth = np.stack([128 + 100 * np.sin(x / 9 + y / 17), 255 * y / 48, 2 * x + y], axis=-1).clip(0, 255)
    texture = np.random.default_rng(0).normal(0, 12, smooth.shape)
    color = (smooth + texture).clip(0, 255).astype(np.uint8)
    alpha = np.hypot(x - 32, y - 24).clip(0, 20).astype(np.uint8) * 12
    rgba = np.dstack([color, alpha])
    deep = color.astype(np.uint16) * 257 + 5
    picture = Image.fromarray(color)
    files: dict[str, bytes] = {}

    def pillow(name: str, image: Image.Image, **options) -> None:
        image.save(file := io.BytesIO(), **options)
        files[name] = file.getvalue()

    def tiff(name: str, samples: np.ndarray, **options) -> None:
        tifffile.imwrite(file := io.BytesIO(), samples, metadata=None, **options)
        files[name] = file.getvalue()

    pillow("8.png", picture, format="PNG")
    said: dict = {
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "exif": Image.Exif(),
    }
    said["exif"].update({0x0112: 6, 0x010F: "Maker", 0x011A: 72.0, 0x011B: 72.0})
    said["exif"].get_ifd(0x8769).update({0x829A: 0.01, 0xA002: 64, 0x9003: "2026:01:01 00:00:00"})
    pillow("alpha.png", Image.fromarray(rgba), format="PNG", dpi=(72, 72), **said)
    pillow("said.jpg", picture, format="JPEG", xmp=b"<x tiff:Orientation='6'/>", **said)
    pillow("said.webp", picture, format="WEBP", **said)
    pillow("said.tif", picture, format="TIFF", compression="tiff_lzw", **said)
    pillow("palette.png", picture.quantize(50), format="PNG")
    files["16.png"] = bytes(imagecodecs.png_encode(deep))
    pillow("444.jpg", picture, format="JPEG", quality=90, subsampling="4:4:4")
    pillow("progressive.jpg", picture, format="JPEG", progressive=True, exif=b"Exif\0\0II*\0\10\0\0\0\0\0\0\0\0\0")
    pillow("cmyk.jpg", picture.convert("CMYK"), format="JPEG")
    pillow("grey.jpg", picture.convert("L"), format="JPEG", optimize=True)
    pillow("lossy.webp", picture, format="WEBP", quality=80)
    pillow("lossless.webp", Image.fromarray(rgba), format="WEBP", lossless=True)
    pillow("p.gif", picture.quantize(64), format="GIF")
    pillow(
        "frames.gif", picture.quantize(64), format="GIF", save_all=True, append_images=[picture.rotate(9).quantize(9)]
    )
    pillow("24.bmp", picture, format="BMP")
    pillow("8.bmp", picture.quantize(200), format="BMP")
    pillow("8.ppm", picture, format="PPM")
    files["16.ppm"] = b"P6 64 48 65535\n" + deep.astype(">u2").tobytes()
    files["text.pgm"] = b"P2\n# grey\n64 48 255\n" + b" ".join(b"%d" % v for v in color[..., 0].flat)
    pillow("photo.avif", picture, format="AVIF")
    for compression in (None, "lzw", "zlib", "packbits", "jpeg"):
        tiff(f"{compression}.tif", color, photometric="rgb", compression=compression, rowsperstrip=16)
    tiff("16lzw.tif", deep, photometric="rgb", compression="lzw", predictor=True, rowsperstrip=16)
    tiff("planes.tif", np.moveaxis(deep, -1, 0), photometric="rgb", planarconfig="separate", compression="zlib")
    tiff("tiles.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16), compression="lzw")
    tiff("12.tif", deep[..., 0] >> 4, photometric="miniswhite", bitspersample=12)
    tiff(
        "big.tif",
        deep[..., :2],
        photometric="minisblack",
        extrasamples=["assocalpha"],
        planarconfig="contig",
        bigtiff=True,
    )
    return files


def mutations() -> tuple[Mutation, ...]:
    """Return the ways in which files are damaged; each changes a bytearray in place."""

    def place(data: bytearray, chance: random.Random) -> int:
        return chance.randrange(min(len(data), chance.choice([64, 600, len(data)])))

    def bits(data: bytearray, chance: random.Random) -> None:
        for _ in range(chance.choice([1, 1, 2, 8])):
            data[place(data, chance)] ^= 1 << chance.randrange(8)

    def octets(data: bytearray, chance: random.Random) -> None:
        for _ in range(chance.choice([1, 4, 16])):
            data[place(data, chance)] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])

    def zeros(data: bytearray, chance: random.Random) -> None:
        start = place(data, chance)
        length = min(chance.choice([4, 64, 500, len(data)]), len(data) - start)
        data[start : start + length] = bytes(length)

    def cut(data: bytearray, chance: random.Random) -> None:
        del data[place(data, chance) :]

    def remove(data: bytearray, chance: random.Random) -> None:
        start = place(data, chance)
        del data[start : start + chance.choice([1, 7, 100])]

    def repeat(data: bytearray, chance: random.Random) -> None:
        start = place(data, chance)
        data[start:start] = data[start : start + chance.choice([1, 20, 300])]

    def numbers(data: bytearray, chance: random.Random) -> None:
        start = place(data, chance)
        value = chance.choice([0, 1, 2, 255, 2**15, 2**16 - 1, 2**31, 2**32 - 1, len(data)])
        data[start : start + 4] = value.to_bytes(4, chance.choice(["little", "big"]))

    return bits, octets, zeros, cut, remove, repeat, numbers


def cases(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` mutated files, in turn of every format, with a name that says which and how."""
    files, ways = list(seeds().items()), mutations()
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        name, content = files[number % len(files)]
        data, way = bytearray(content), chance.choice(ways)
        way(data, chance)
        yield f"{number}-{way.__name__}-{name}", bytes(data)


def other_reading(data: bytes) -> np.ndarray | None:
    """Return (H, W, 3) uint8 by a decoder that is not ours; None where it refuses or is known to read another way."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            pixels = imagecodecs.png_decode(data)
        elif data[:2] == b"\xff\xd8":
            pixels = imagecodecs.jpeg8_decode(data)
        elif data[:4] == b"RIFF":
            pixels = imagecodecs.webp_decode(data)
        elif data[:2] in (b"II", b"MM"):
            with tifffile.TiffFile(io.BytesIO(data)) as tiff:
                page = tiff.pages.first
                if page.photometric not in (1, 2) or page.planarconfig != 1 or page.tags.valueof(274, 1) != 1:
                    return None
                if page.bitspersample not in (8, 16) or len(tiff.pages) > 1 or 1 in page.extrasamples:
                    return None
                pixels = page.asarray()
        elif data[:2] == b"BM":
            pixels = imagecodecs.bmp_decode(data)
        else:
            return None
    except Exception:  # the other decoder's opinion of damaged files does not matter
        return None
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
        return None
    pixels = to_8_bit(np.atleast_3d(pixels))
    channels = pixels.shape[2]
    return pixels[..., :3] if channels == 3 or channels == 4 else pixels[..., :1].repeat(3, axis=2)


def verdict(data: bytes) -> str:
    """Return "refused", "read", "compared", or what is wrong with how the reader took a file."""
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = "refused"
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        try:
            photo = read_photo(data, max_pixels=MAX_PIXELS, name="x")
        except UserError as error:
            if "\n" in str(error) or not str(error).startswith("x: "):
                return f"unclear message {error}"
            if fault := through_command_line(data):
                return fault
        except BaseException as error:
            return f"traceback {type(error).__name__}: {error}"
        else:
            if fault := writing_fault(photo):
                return fault
            outcome = "warned" if any("damaged" in str(note.message) for note in notes) else compare(photo, data)
    if time.monotonic() - start > SLOWEST:
        return "hang"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > MOST_MEMORY * 1024:
        return "memory"
    return outcome


def writing_fault(photo: Photo) -> str | None:
    """Return what goes wrong when the photo, with all that its file said, is written and read again; mostly None."""
    with TemporaryDirectory() as folder:
        for suffix in (".png", ".tif", ".webp", *([] if photo.has_alpha else [".jpg"])):
            path = Path(folder, f"x{suffix}")
            if max(photo.pixels.shape) > LONGEST_SIDE.get(WRITE_FORMATS[suffix], MAX_PIXELS):
                continue
            try:
                write_photo(photo, path)
                again = read_photo(path, strict=suffix != ".jpg")  # zeros in its codes are no proof
            except Exception as error:
                return f"unwritable as {suffix}: {type(error).__name__}: {error}"
            if suffix in (".png", ".tif") and not np.array_equal(again.pixels, photo.pixels):
                return f"garbage written as {suffix}"
            if os.listdir(folder) != [path.name]:
                return "partial file left"
            path.unlink()
    return None


def through_command_line(data: bytes) -> str | None:
    """Return what is wrong with how `frfsr upscale` refuses a file that the reader refuses; mostly None."""
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()) as said:
        Path(folder, "x").write_bytes(data)
        code = cli.main(["upscale", f"{folder}/x", "-o", f"{folder}/out.png", "--max-pixels", str(MAX_PIXELS)])
        lines = [line for line in said.getvalue().splitlines() if line]
        if code != 2 or len(lines) != 1 or os.listdir(folder) != ["x"]:
            return f"unclear refusal: exit code {code}, {len(lines)} lines, files {os.listdir(folder)}"
    return None


def compare(photo: Photo, data: bytes) -> str:
    """Return "compared" where both decoders agree, "read" where the other one has no opinion, else "garbage"."""
    other = other_reading(data)
    ours = photo.rgb8()
    if other is None or (data[:2] == b"\xff\xd8" and Image.open(io.BytesIO(data)).mode == "CMYK"):
        return "read"
    turned = [turn_upright(other, orientation) for orientation in range(1, 9)]  # other decoders leave it to the caller
    differences = [np.abs(image.astype(int) - ours).mean() for image in turned if image.shape == ours.shape]
    if not differences:
        return f"garbage {ours.shape} for {other.shape}"
    return "compared" if min(differences) <= CLOSE else f"garbage, {min(differences):.0f} of 255 away"


def run(
    count: int,
    seed: int = 0,
    findings: Path | None = None,
    judge: Callable[[str, bytes], str] = lambda name, data: verdict(data),
    good: Collection[str] = GOOD,
) -> Tally:
    """Try `count` mutated files: what `judge` says of each must be `good`; culprits are saved in `findings`."""
    tally = Tally(Counter(), [])
    for name, data in cases(count, seed):
        outcome = judge(name, data)
        tally.outcomes[outcome.split()[0].strip(",")] += 1
        if outcome not in good:
            tally.findings.append(f"{name}: {outcome}")
            if findings:
                findings.mkdir(exist_ok=True)
                (findings / name).write_bytes(data)
    return tally


def main(trial: Callable[[int, int, Path], Tally] = run, what: str = "files") -> int:
    """Run from the command line; exit code 1 for findings."""
    count, seed = (int(value) for value in (*sys.argv[1:], "5000", "0")[: max(2, len(sys.argv) - 1)][:2])
    start = time.monotonic()
    tally = trial(count, seed, FINDINGS)
    print(*tally.findings, sep="\n")
    print(f"{count} {what} in {time.monotonic() - start:.0f} s:", dict(tally.outcomes))
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
