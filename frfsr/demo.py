"""`make demo`: one view of a stereo pair, enlarged with the other view as its reference, beside the truth.

The photographs come inside scikit-image: a motorcycle from the Middlebury 2014 stereo benchmark, seen by two cameras
193 mm apart, so that the reference shows most of the scene from elsewhere and never the same pixels.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frfsr.architectures import load
from frfsr.degrade import SCALE, downscale, upscale_bicubic
from frfsr.errors import UserError
from frfsr.evals.metrics import psnr_y, ssim_y
from frfsr.imageio import Photo, check_output, photo_from_pil, write_photo
from frfsr.upscaling.upscale import upscale_photo

ROWS, COLUMNS = slice(150, 430), slice(130, 510)  # engine, tank and lettering: sides are multiples of 4
CAPTION = 24  # pixels


def main() -> int:
    """Print the figures and write the comparison picture.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m frfsr.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="frfsr-tiny", help="packaged name, folder or Hub id (%(default)s)")
    parser.add_argument("-o", "--output", default="demo.png", help="the comparison picture (%(default)s)")
    options = parser.parse_args()
    try:
        run(options.model, options.output)
    except UserError as error:
        print("frfsr:", error, file=sys.stderr)
        return 2
    return 0


def run(model_name: str | Path, output: str | Path) -> None:
    """Super-resolve the photograph with an unrelated and with its real reference; print PSNR-Y and SSIM-Y of each."""
    truth, reference, unrelated = photographs()
    check_output(output, *truth.shape[:2], has_alpha=False)
    model = load(model_name)
    lr = downscale(truth)
    results = {
        "bicubic": upscale_bicubic(lr),
        "frfsr, unrelated reference": upscale_photo(Photo(lr), [Photo(unrelated)], model).photo.pixels,
        "frfsr": upscale_photo(Photo(lr), [Photo(reference)], model).photo.pixels,
    }
    height, width = truth.shape[:2]
    panels = {f"LR, {width // SCALE}x{height // SCALE}": lr.repeat(SCALE, axis=0).repeat(SCALE, axis=1)}
    print(f"{'':26}  PSNR-Y  SSIM-Y")
    for name, image in results.items():
        psnr, ssim = psnr_y(image, truth), ssim_y(image, truth)
        print(f"{name:26}  {psnr:6.2f}  {ssim:6.4f}")
        panels[f"{name}: {psnr:.2f} dB"] = image
    panels |= {"reference (whole, reduced)": reference, "truth": truth}
    write_photo(photo_from_pil(comparison(panels, width, height)), output)
    print(f"comparison: {output}")


def photographs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the photos of the demonstration.

    Returns:
        The truth, its reference and an unrelated photo, (H, W, 3) uint8.

    Raises:
        UserError: scikit-image, whose wheel carries them, is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise UserError("the demo's photographs come with scikit-image: pip install 'frfsr[demo]'.") from error
    left, right, _ = data.stereo_motorcycle()
    return left[ROWS, COLUMNS], right, data.coffee()


def comparison(panels: dict[str, np.ndarray], width: int, height: int) -> Image.Image:
    """Labelled pictures (uint8, RGB) in two rows, each fitted into width x height without distortion."""
    columns = -(-len(panels) // 2)
    sheet = Image.new("RGB", (columns * width, 2 * (height + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=CAPTION * 2 // 3)
    for position, (label, pixels) in enumerate(panels.items()):
        row, column = divmod(position, columns)
        left, top = column * width, row * (height + CAPTION)
        picture = Image.fromarray(pixels)
        picture.thumbnail((width, height), Image.Resampling.LANCZOS)
        draw.text((left + 6, top + 2), label, "black", font)
        sheet.paste(picture, (left, top + CAPTION))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
