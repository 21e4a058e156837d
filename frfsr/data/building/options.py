"""What a person may set when pairs are built."""

from typing import Annotated

from pydantic import Field

from frfsr.errors import UserError
from frfsr.settings import Positive, settings

ZOOMS = (0.25, 4.0)


@settings
class BuildOptions:
    """How pairs are cut from photos.

    Attributes:
        cell: side in pixels of inputs and references, a multiple of 4.
        zoom: smallest and largest size of the content in the reference over that in the input, 0.25 to 4.
        longest: photos are reduced to this long side, in pixels, at most, before inputs are cut.
        neighbours: with how many others of its place, those most alike, a photo is compared.
        per_pair: how many cells two photos give at most.
        per_photo: how many cells one photo gives at most as input, whatever it is paired with.
        seed: of zooms, shifts and order; the same photos and settings give the same file.
    """

    cell: Annotated[int, Field(ge=64, le=1024, multiple_of=4)] = 160
    zoom: tuple[float, float] = (0.55, 1.8)
    longest: Annotated[int, Field(ge=256, le=8192)] = 1280
    neighbours: Positive = 8
    per_pair: Positive = 8
    per_photo: Positive = 24
    seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        low, high = self.zoom
        if not ZOOMS[0] <= low <= high <= ZOOMS[1]:
            raise UserError(f"zoom: {low} to {high} is no range within {ZOOMS[0]} to {ZOOMS[1]}.")
        if self.longest < self.cell:
            raise UserError(f"longest ({self.longest}) must be at least the cell ({self.cell}).")
