"""Why a result looks as it does: where each texture was found, how sure the match is, and what it changed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frfsr.base import load_with_base
from frfsr.errors import UserError
from frfsr.files import added_to_folder
from frfsr.imageio import Photo
from frfsr.imageio.photo import to_8_bit
from frfsr.kernels import flow_warp
from frfsr.matching import enlarge_flow
from frfsr.network import Network
from frfsr.pixels import to_pixels, to_tensor
from frfsr.upscaling.kinds import PhotoLike, as_photos, as_references, several
from frfsr.upscaling.matches import Matches, Place, matched_place
from frfsr.upscaling.options import DEFAULTS, Options, Report
from frfsr.upscaling.pictures import SOURCES, blend, heat, position_colours, source_colours
from frfsr.upscaling.prepare import color_tensor
from frfsr.upscaling.references import seen
from frfsr.upscaling.upscale import upscale_photo

GRID = 8  # regions along the photo's longer side, for the numbers
VISIBLE = 2  # levels of 255: what differs by more counts as changed
STRONG = 32  # levels of 255 that are drawn brightest


class Matched(NamedTuple):
    """What was found where; pictures are (H, W, 3) uint8.

    Attributes:
        matches: for each LR pixel.
        hues: the result's brightness in the hues of the matched places, of the result's size.
        warped: the references' pixels at their matched places, likewise.
        views: the references as the network saw them, of any sizes.
        keys: the same in the hues of their places.
    """

    matches: Matches
    hues: np.ndarray
    warped: np.ndarray
    views: tuple[np.ndarray, ...]
    keys: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Explanation:
    """A result and what it was made of.

    Attributes:
        result: as of `frfsr.upscale`.
        alone: the network's result without any reference.
        change: (4h, 4w) float32, how far the two differ, levels of 255, mean over the colours.
        report: views, tiles, notes.
        matched: where the textures were found; None if the network matched nothing.
        names: of the references.
    """

    result: Photo
    alone: Photo
    change: np.ndarray
    report: Report
    matched: Matched | None
    names: tuple[str, ...]

    def place(self, x: float, y: float) -> Place | None:
        """Where the texture at pixel (x, y) of the result was found; None if nothing was matched."""
        return None if self.matched is None else matched_place(self.report, self.matched.matches, x, y)

    def numbers(self) -> dict[str, Any]:
        """All that can be said in numbers, for JSON."""
        height, width = self.change.shape
        names = dict(enumerate(self.names))
        views = [
            {**asdict(view), "file": names.get(view.reference), "colour": list(SOURCES[number % len(SOURCES)])}
            for number, view in enumerate(self.report.views)
        ]
        facts: dict[str, Any] = {
            "size": [width, height],
            "tile": self.report.tile,
            "tiles": self.report.tiles,
            "views": views,
            "confidence": None,
            "change": {
                "mean": float(self.change.mean()),
                "largest": float(self.change.max()),
                "changed_share": float((self.change > VISIBLE).mean()),
            },
            "notes": list(self.report.notes),
            "warnings": list(self.report.warnings),
        }
        if self.matched is not None:
            score = self.matched.matches.score
            low, middle, high = np.percentile(score, [10, 50, 90])
            facts["confidence"] = {
                "mean": float(score.mean()),
                "percentile_10": float(low),
                "median": float(middle),
                "percentile_90": float(high),
            }
        return facts | {"regions": list(self.regions())}

    def regions(self) -> Iterable[dict[str, Any]]:
        """The photo in about GRID x GRID regions: what was matched there, and what it changed."""
        height, width = (side // 4 for side in self.change.shape)
        side = max(1, -(-max(height, width) // GRID))
        for top in range(0, height, side):
            for left in range(0, width, side):
                here = np.s_[top : min(top + side, height), left : min(left + side, width)]
                right, bottom = 4 * here[1].stop, 4 * here[0].stop
                change = self.change[4 * top : bottom, 4 * left : right]
                region: dict[str, Any] = {"box": [4 * left, 4 * top, right, bottom], "change": float(change.mean())}
                if self.matched is not None:
                    matches = self.matched.matches
                    counts = np.bincount(matches.source[here].ravel())
                    shares = {int(view): float(counts[view] / counts.sum()) for view in counts.nonzero()[0]}
                    middle = self.place((4 * left + right) / 2, (4 * top + bottom) / 2)
                    region["confidence"] = float(matches.score[here].mean())
                    region |= {"views": shares, "middle_found_at": middle and middle._asdict()}
                yield region

    def pictures(self) -> dict[str, np.ndarray]:
        """All pictures by the names of their files."""
        found = {"result": rgb(self.result), "without_references": rgb(self.alone)}
        found["change"] = heat(self.change / STRONG)
        if self.matched is not None:
            matches, hues, warped, views, keys = self.matched
            found |= {"matches": hues, "warped": warped}
            found["confidence"] = heat(matches.score)
            found["source"] = source_colours(matches.source)
            for number, (view, key) in enumerate(zip(views, keys, strict=True), start=1):
                found |= {f"view_{number}": view, f"view_{number}_places": key}
        return found

    def save(self, folder: str | Path) -> None:
        """Write the pictures as PNG and `explanation.json` into a folder, which is made if needed.

        Raises:
            UserError: the folder cannot be written.
        """
        with added_to_folder(folder) as partial:
            for name, picture in self.pictures().items():
                Image.fromarray(picture).save(partial / f"{name}.png")
            (partial / "explanation.json").write_text(json.dumps(self.numbers(), indent=2) + "\n")


def explain(
    lr: PhotoLike,
    references: PhotoLike | Iterable[PhotoLike],
    model: Network | str | Path = "frfsr-tiny",
    device: str | None = None,
    dtype: str | None = None,
    *,
    base: Network | str | Path | None = None,
    **options: Any,
) -> Explanation:
    """Enlarge a photo as `frfsr.upscale` does, and tell where the textures come from and what they changed.

    Args:
        lr: of any kind that `frfsr.upscale` takes, but no batch of several.
        references: one or several of any kind.
        model: a loaded network, or the name, folder or Hub id of one.
        device: see `frfsr.load`; only for a model given by name.
        dtype: see `frfsr.load`; only for a model given by name.
        base: see `frfsr.upscale`.
        **options: fields of `frfsr.upscaling.options.Options`.

    Returns:
        The result, and what it was made of.

    Raises:
        UserError: as `frfsr.upscale`.

    Examples:
        >>> import frfsr
        >>> explained = frfsr.explain("photo.png", ["sharp.png"])
        >>> explained.place(x=40, y=32).reference  # in which reference the texture at a pixel of the result was found
        0
        >>> explained.save("why")  # pictures, and numbers as JSON
    """
    settings = Options(**options)
    references = several(references)
    photo, *others = as_photos(lr, "the photo")
    if others:
        raise UserError(f"a batch of {len(others) + 1} photos: explain one at a time.")
    (sharp,) = as_references(references, photos=1)
    names = [
        str(image) if isinstance(image, str | PathLike) else f"reference {number}"
        for number, image in enumerate(references, start=1)
    ]
    network, refined = load_with_base(model, base, device, dtype)
    return explain_photo(photo, sharp, network, settings, base=refined, names=names)


def explain_photo(
    photo: Photo,
    references: Sequence[Photo],
    model: Network,
    options: Options = DEFAULTS,
    *,
    base: Network | None = None,
    names: Sequence[str] = (),
    progress: bool = False,
) -> Explanation:
    """As `explain`, of what has been read and loaded; arguments as for `frfsr.upscaling.upscale.upscale_photo`."""
    alone = upscale_photo(photo, (), model, options, base=base, progress=progress).photo
    result, report, matches = upscale_photo(
        photo, references, model, options, base=base, names=names, progress=progress
    )
    difference = np.abs(rgb(result).astype(np.float32) - rgb(alone))
    matched = None
    if matches is not None and matches.score.any():
        matched = show_matches(rgb(result), [color_tensor(reference) for reference in references], report, matches)
    return Explanation(result, alone, difference.mean(2), report, matched, tuple(names))


def rgb(photo: Photo) -> np.ndarray:
    """Colours as (H, W, 3) uint8."""
    return to_8_bit(photo.rgb())


def show_matches(result: np.ndarray, references: Sequence[Tensor], report: Report, matches: Matches) -> Matched:
    """Draw the matches.

    Args:
        result: (4h, 4w, 3) uint8.
        references: (1, 3, H, W) each, RGB in [0, 1].
        report: its views are shown.
        matches: with them.

    Returns:
        Pictures of them.
    """
    views = [seen(references[view.reference], view) for view in report.views]
    places = [position_colours(*view.shape[-2:]) for view in views]
    pictures = [to_pixels(view[0]) for view in views]
    return Matched(
        matches,
        hues=blend(result, warp([to_tensor(place)[None] for place in places], matches)),
        warped=warp(views, matches),
        views=tuple(pictures),
        keys=tuple(blend(picture, place) for picture, place in zip(pictures, places, strict=True)),
    )


def warp(views: Sequence[Tensor], matches: Matches) -> np.ndarray:
    """Pixels of the views (1, 3, H, W) at the places with which the photo was matched: (4h, 4w, 3) uint8."""
    flow = enlarge_flow(torch.from_numpy(matches.flow)[None], 4)
    source = matches.source.repeat(4, 0).repeat(4, 1)
    picture = np.zeros((*source.shape, 3), np.uint8)
    for number, view in enumerate(views):
        here = source == number
        if here.any():
            picture[here] = to_pixels(flow_warp(view, flow)[0])[here]
    return picture
