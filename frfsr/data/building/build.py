"""Training pairs from a folder of photos of places: matched, cut into cells, checked, and written into one pack."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
from datasets import Features as Columns
from datasets import Image, Value
from tqdm import tqdm

from frfsr.data.building.cells import Side, View, cells_of
from frfsr.data.building.leakage import Benchmarks, Leak
from frfsr.data.building.matches import inliers, mutual_matches, root_sift
from frfsr.data.building.options import BuildOptions
from frfsr.data.building.photos import Features, Photo, describe, find_photos, pixels_of
from frfsr.data.building.report import Report
from frfsr.data.building.select import Candidate, by_place, choose
from frfsr.data.building.work import Work, read_dropped, read_figures, read_images
from frfsr.data.layouts import Fault
from frfsr.data.packs import write_pack
from frfsr.errors import UserError
from frfsr.files import require_writable, write_text
from frfsr.names import require_pack_name

GLANCE = 600  # strongest points by which photos of a large place are compared first
VOTES = 6  # of them that must match
COLUMNS = Columns(
    {
        "name": Value("string"),
        "input": Image(),
        "reference": Image(),
        "place": Value("string"),
        "input_photo": Value("string"),
        "reference_photo": Value("string"),
        "zoom": Value("float32"),
        "inliers": Value("int32"),
        "matched_x": Value("float32"),
        "matched_y": Value("float32"),
        **{f"{side}_{edge}": Value("float32") for side in ("input", "reference") for edge in View._fields},
    }
)


def build(
    source: str | Path, out: str | Path, options: BuildOptions | None = None, not_in: Iterable[str | Path] = ()
) -> Report:
    """Make training pairs of photos of places, in a pack that `frfsr.data.load_pairs` reads.

    Beside ``name``, ``input`` and ``reference`` its rows have ``place`` (a photo of it), ``input_photo`` and
    ``reference_photo``, ``zoom`` (size of the content in the reference over that in the input), ``inliers`` (places
    that both show), ``matched_x`` and ``matched_y``: where the reference shows the input's centre, in its pixels;
    ``input_left``, ``_top``, ``_side`` and those of the reference: the square of the photo, in its pixels.

    Args:
        source: a folder with photos, best with a folder for each place; or ``input/`` + ``ref/``, an ImageFolder with
            metadata or CUFED5's groups, whose photos are matched with their own references only.
        out: the pack; the report is written beside it as JSON. Both appear only when all is done. When the work is
            interrupted, the same call goes on where it stopped.
        options: sizes, caps and the seed.
        not_in: folders and packs of benchmarks: photos that show what they show are left out.

    Returns:
        What was found and left out.

    Raises:
        UserError: there is no such folder, nothing matches, or `out` cannot be written.
    """
    options, out = options or BuildOptions(), Path(out)
    require_pack_name(out)
    require_writable(out)
    found = find_photos(Path(source).expanduser())
    benchmarks = Benchmarks(not_in)
    report = Report(options, len(benchmarks.images), skipped=found.faults)
    work = Work(out)
    candidates: list[Candidate] = []
    for place in progress(found.places, "places"):
        report.photos += len(place)
        known = usable(place, benchmarks, work, report)
        if found.partners is None:
            pairs = [pair for two in alike(known, work, options) for pair in (two, two[::-1])]
        else:
            names = {photo.name: photo for photo in known}
            pairs = [
                (photo, names[name])
                for photo in known
                for name in found.partners.get(photo.name, ())
                if name in names and name != photo.name
            ]
        for first, second in progress(pairs, "pairs of photos"):
            candidates += cut(first, second, known, work, report)
    places = by_place(choose(candidates, options, report.dropped), options.seed)
    if not places:
        work.remove()
        raise UserError(f"{source} gives no pairs: {' | '.join(str(report).splitlines())}")
    chosen = [candidate for place in places.values() for candidate in place]
    report.pairs, report.places = len(chosen), {name: len(place) for name, place in places.items()}
    report.zooms, report.inliers = ([entry.figures[key] for entry in chosen] for key in ("zoom", "inliers"))
    write_pack(progress(rows(places), "writing", len(chosen)), COLUMNS, out)
    write_text(out.with_suffix(".json"), json.dumps(report.as_json(), indent=1) + "\n")
    work.remove()
    return report


def progress(steps: Iterable, what: str, total: int | None = None) -> Iterable:
    """A bar on a terminal, nothing elsewhere."""
    return tqdm(steps, desc=what, total=total, unit="", disable=None, leave=False)


def usable(place: list[Photo], benchmarks: Benchmarks, work: Work, report: Report) -> dict[Photo, Features]:
    """Tell the photos that can be used from the others, which go into the report.

    Args:
        place: photos of one place.
        benchmarks: what must not be shown.
        work: keeps what is computed.
        report: takes what is left out.

    Returns:
        What is known of the usable ones.
    """
    known: dict[Photo, Features] = {}
    names: dict[str, str] = {}
    options = report.settings
    for photo in progress(place, "photos"):
        same = names.setdefault(photo.identity, photo.name)
        if same != photo.name:
            report.skipped.append(Fault(photo.name, f"the same file as {same}"))
            continue
        features = work.features(
            lambda photo=photo: describe(pixels_of(photo), options.longest, options.cell),
            *("features", photo.identity, options.longest, options.cell),
        )
        if isinstance(features, str):
            report.skipped.append(Fault(photo.name, features.removeprefix(f"{photo.file}: ")))
            continue
        leak = work.value(
            lambda features=features: benchmarks.find(features),
            *("leak", photo.identity, options.longest, options.cell, benchmarks.identity),
        )
        if leak:
            report.leaks.append(Leak(photo.name, *leak))
        else:
            known[photo] = features
    return known


def alike(known: dict[Photo, Features], work: Work, options: BuildOptions) -> list[tuple[Photo, Photo]]:
    """Pairs of photos that are worth comparing: all of a small place, else each with those most alike at a glance."""
    photos = list(known)
    if len(photos) <= options.neighbours + 1:
        return list(combinations(photos, 2))
    glances = [root_sift(known[photo].descriptors[:GLANCE]) for photo in photos]
    votes = np.zeros((len(photos), len(photos)), int)
    identities = [photo.identity for photo in photos]
    for number, glance in enumerate(progress(glances, "photos at a glance")):
        votes[number, number + 1 :] = work.value(
            lambda number=number, glance=glance: [len(mutual_matches(glance, key)) for key in glances[number + 1 :]],
            *("votes", options.longest, options.cell, identities[number:]),
        )
    votes += votes.T
    pairs = {
        tuple(sorted((number, int(other))))
        for number, row in enumerate(votes)
        for other in np.argsort(-row, kind="stable")[: options.neighbours]
        if row[other] >= VOTES
    }
    return [(photos[first], photos[second]) for first, second in sorted(pairs)]


def cut(first: Photo, second: Photo, known: dict[Photo, Features], work: Work, report: Report) -> Iterator[Candidate]:
    """Cut the cells of a photo with references of another one.

    Args:
        first: gives the cells.
        second: gives the references.
        known: of `usable`.
        work: keeps what is computed.
        report: has the settings, and takes what is left out.

    Yields:
        Pairs that may be taken.
    """
    settings = {key: value for key, value in asdict(report.settings).items() if key not in ("neighbours", "per_photo")}
    identity = (settings, first.identity, second.identity)
    report.compared += 1

    def make() -> tuple[list[dict], dict[str, int]]:
        places = inliers(known[first], known[second])
        if not len(places):
            return [], {}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8]))
        inputs, references = (Side(pixels_of(photo), known[photo]) for photo in (first, second))
        return cells_of(inputs, references, places, report.settings, rng)

    file = work.cells(make, *identity)
    dropped, figures = read_dropped(file), read_figures(file)
    report.matched += bool(dropped or figures)
    report.dropped += Counter(dropped)
    for rank, row in enumerate(figures):
        yield Candidate(first.name, second.name, file, rank, row)


def rows(places: dict[str, list[Candidate]]) -> Iterator[dict]:
    """The rows of the pack."""
    images: Callable[[Path], list[dict[str, bytes]]] = lru_cache(maxsize=32)(read_images)
    number = 0
    for place, candidates in places.items():
        for candidate in candidates:
            figures, name = candidate.figures, f"{number:06d}"
            stored = images(candidate.file)[candidate.rank]
            yield {
                "name": name,
                **{side: {"bytes": stored[side], "path": f"{name}_{side}.png"} for side in ("input", "reference")},
                "place": place,
                "input_photo": candidate.input_photo,
                "reference_photo": candidate.reference_photo,
                "zoom": figures["zoom"],
                "inliers": figures["inliers"],
                "matched_x": figures["matched"][0],
                "matched_y": figures["matched"][1],
                **{
                    f"{side}_{edge}": value
                    for side in ("input", "reference")
                    for edge, value in zip(View._fields, figures[f"{side}_square"], strict=True)
                },
            }
            number += 1
