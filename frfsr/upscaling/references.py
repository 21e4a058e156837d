"""References at another scale, or turned: which view of a reference matches the photo.

The matching finds a texture only at about the scale (7 %) and in the orientation in which the photo shows it. So a
cheap search looks for the zoom and the quarter turn at which matches are most *coherent*: where neighbours in the photo
are matched with neighbours in the reference, more than they would be by chance. Their mean score says nothing: it is
highest for enlarged, smooth views.

The search compares reduced images: at half the photo's scale it costs a sixteenth. It sees the references with the
encoder of frfsr-tiny, whatever the network that uses them.
"""

from collections.abc import Sequence
from functools import cache
from math import inf, log, prod, sqrt
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from frfsr.checkpoints import find_model, read_config
from frfsr.features import TextureEncoder
from frfsr.matching import best_patch, drifts, index_to_flow
from frfsr.pixels import to_tensor
from frfsr.upscaling.options import View

SEEN = 64  # positions along the photo's longer side that are compared
ROWS = 0.4  # of them, in the middle
ROWS_AT_ONCE = 256  # of a reference that become floating point while it is reduced
STEP = 8  # positions between neighbours
ZOOMS = tuple(2 ** (half / 2) for half in range(-3, 3))
TURNS = (0, 90, 180, 270)
SMALLEST = 2 * STEP + 2  # positions; below, nothing can be said
SWITCH = 1.6  # times as coherent must another view be before the reference is resized, and again before it is turned
SAME = 0.04  # |log zoom| that the network itself bridges better than a resized image
NOISE = 0.03  # that a finer zoom must gain, in both shares together
UNRELATED = 0.025  # coherence below which nothing of the photo is recognised; ROC in docs/references.md
SURE = 0.04  # coherence from which on a reference is resized or turned


class Found(NamedTuple):
    """What one view shows.

    Attributes:
        coherence: 0, as by chance, ... 1.
        zoom: at which its matches would keep their distances.
        exact: the share of neighbours that keep theirs exactly, which falls faster with a wrong zoom.
    """

    coherence: float
    zoom: float
    exact: float = 0.0


@cache
def encoder(device: torch.device) -> TextureEncoder:
    """The encoder by which views are compared."""
    files = find_model("frfsr-tiny")
    _, sizes = read_config(files)
    texture = TextureEncoder(tuple(sizes["encoder_channels"]))
    with safe_open(files.weights, "pt") as stored:  # these few weights alone: a whole network takes longer to build
        names = [name for name in stored.keys() if name.startswith("encoder.")]  # noqa: SIM118
        texture.load_state_dict({name.removeprefix("encoder."): stored.get_tensor(name) for name in names})
    return texture.to(device).requires_grad_(False)


@torch.inference_mode()
def search(
    lr: Tensor, reference: np.ndarray, device: torch.device, largest: float = inf
) -> dict[tuple[int, float], Found]:
    """Compare views of a reference with the photo.

    Args:
        lr: (1, 3, h, w), RGB in [0, 1].
        reference: (H, W, 3), RGB as files have it.
        device: to compute on.
        largest: pixels of a view, as it is compared; larger ones are not looked at.

    Returns:
        (turn in degrees, zoom) -> what was found; empty for photos too small to tell.
    """
    scale = min(4.0, 4 * SEEN / max(lr.shape[-2:]))
    if min(lr.shape[-2:]) * scale / 4 < SMALLEST:
        return {}
    texture = encoder(device)
    photo = resized(lr.to(device), scale)
    rows = max(round(ROWS * photo.shape[-2] / 4), SMALLEST)
    top = (photo.shape[-2] - 4 * rows) // 2
    photo = photo[..., top : top + 4 * rows, :]
    queries = {turn: texture(turned(photo, -turn)) for turn in TURNS}
    found: dict[tuple[int, float], Found] = {}

    def look(turns: Sequence[int], zoom: float) -> None:
        size = resized_sides(reference.shape[:2], zoom * scale / 4)
        if min(size) < 12 or prod(size) > largest:
            return
        key = texture(resized_pixels(reference, zoom * scale / 4).to(device))
        places = [side - 2 for side in key.shape[-2:]]
        for turn in turns:
            _, index = best_patch(queries[turn], key, "valid")
            found[turn, zoom] = judged(index_to_flow(index, places[-1]), zoom, places)

    fitting = sqrt(16 * lr.shape[-2] * lr.shape[-1] / prod(reference.shape[:2]))
    smaller = [zoom for zoom in (2 ** (-half / 2) for half in range(4, 12)) if zoom > fitting / 2]
    for zoom in (*smaller, *ZOOMS):
        look(TURNS, zoom)
    for _ in range(2):  # the matches themselves tell how far the zoom is off
        if not found:
            break
        turn, zoom = best(found)
        nearer = found[turn, zoom].zoom
        if abs(log(nearer / zoom)) < SAME:
            break
        look([turn], nearer)
        if not (refined := found.get((turn, nearer))):
            break
        if refined.coherence + refined.exact < found[turn, zoom].coherence + found[turn, zoom].exact + NOISE:
            del found[turn, nearer]
            break
    return found


def judged(flow: Tensor, zoom: float, places: Sequence[int]) -> Found:
    """How many matches of neighbours are neighbours, and by how much the zoom is off.

    Args:
        flow: (1, h, w, 2) as (x, y).
        zoom: of the view.
        places: down and across, where a match can lie. Of few places many are neighbours by chance.

    Returns:
        Shares of neighbours, and the zoom.
    """
    kept, exact, far, drift = 0, 0, 0, 0.0
    for axis, difference in enumerate(drifts(flow, STEP)):
        distance = difference.abs().amax(-1)
        kept += int((distance <= 1).sum())
        exact += int((distance == 0).sum())
        near = distance <= 2
        drift += float(difference[..., axis][near].sum()) / max(1, int(near.sum())) / 2
        far += distance.numel()
    chance = prod((3 * side - 2) / side**2 for side in places)
    coherence = max(0.0, kept / max(far, 1) - chance) / (1 - chance) if chance < 1 else 0.0
    return Found(coherence, zoom / (1 + drift / STEP), exact / max(far, 1))


def best(found: dict[tuple[int, float], Found]) -> tuple[int, float]:
    """The most coherent view."""
    return max(found, key=lambda view: found[view].coherence)


def is_unrelated(found: dict[tuple[int, float], Found]) -> bool:
    """Whether nothing of the photo is recognised in any view: a reason to say so, not to leave the reference out."""
    return found[best(found)].coherence < UNRELATED


def choose(number: int, found: dict[tuple[int, float], Found], most: int) -> list[View]:
    """The views of a reference that are used, the best first.

    Args:
        number: of the reference.
        found: of `search`.
        most: how many at most.

    Returns:
        At least one.
    """
    if not found:
        return [View(number)]
    chosen: list[View] = []
    if found[best(found)].coherence < SURE:
        as_it_is = found.get((0, 1.0))
        chosen.append(View(number, coherence=as_it_is and as_it_is.coherence))
    for turn, zoom in sorted(found, key=lambda view: -found[view].coherence * prior(*view)):
        if len(chosen) == most:
            break
        if all(turn != view.turn or abs(log(zoom / view.zoom)) > 0.15 for view in chosen):
            own = 1.0 if abs(log(zoom)) < SAME else zoom
            chosen.append(View(number, own, turn, found[turn, zoom].coherence))
    return chosen


def prior(turn: int, zoom: float) -> float:
    """By which a view's coherence counts: less if the reference is turned for it, and less if it is resized."""
    return SWITCH ** -((turn != 0) + (abs(log(zoom)) >= SAME))


def seen(reference: Tensor, view: View) -> Tensor:
    """The reference (1, 3, H, W) as the view shows it."""
    return turned(resized(reference, view.zoom), view.turn)


def seen_size(size: Sequence[int], view: View) -> tuple[int, int]:
    """Height and width of what `seen` returns for a reference of this height and width."""
    height, width = resized_sides(size, view.zoom)
    return (width, height) if view.turn % 180 else (height, width)


def turned(image: Tensor, degrees: int) -> Tensor:
    """Turn (..., H, W) counter-clockwise by a multiple of 90 degrees."""
    return torch.rot90(image, degrees // 90, (-2, -1)).contiguous()


def resized(image: Tensor, factor: float) -> Tensor:
    """Antialiased bicubic interpolation of (1, 3, H, W) in [0, 1]."""
    if factor == 1:
        return image
    return interpolated(image, resized_sides(image.shape[-2:], factor)).clamp(0, 1)


def resized_pixels(pixels: np.ndarray, factor: float) -> Tensor:
    """Do what `resized` does, with pixels (H, W, 3) that never become floating point as a whole if they are reduced."""
    if factor >= 1:
        return resized(to_tensor(pixels)[None], factor)
    height, width = resized_sides(pixels.shape[:2], factor)
    narrow = torch.empty(1, 3, pixels.shape[0], width)
    for top in range(0, pixels.shape[0], ROWS_AT_ONCE):
        band = to_tensor(pixels[top : top + ROWS_AT_ONCE])[None]
        narrow[:, :, top : top + ROWS_AT_ONCE] = interpolated(band, (band.shape[2], width))
    return interpolated(narrow, (height, width)).clamp_(0, 1)


def interpolated(image: Tensor, size: Sequence[int]) -> Tensor:
    """Antialiased bicubic interpolation of (1, 3, H, W): across, then down."""
    return F.interpolate(image, list(size), mode="bicubic", antialias=True, align_corners=False)


def resized_sides(size: Sequence[int], factor: float) -> list[int]:
    """Height and width after `resized`."""
    return [max(1, round(factor * side)) for side in size]
