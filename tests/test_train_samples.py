"""What a training sample consists of: crops of photos of any size, references from elsewhere, views, base images."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from frfsr import FRFSR, FRFSRConfig, degrade
from frfsr.data.pairs import load_pairs
from frfsr.pixels import to_tensor
from frfsr.recipes.config import MatchingConfig, TrainingConfig
from frfsr.recipes.objectives import base_image
from frfsr.recipes.photos import Photos, mirrored, view
from frfsr.recipes.samples import Order, TrainingSamples, drawn_mix, recolour
from frfsr.recipes.setup import fingerprint
from frfsr.recipes.validate import Validation
from frfsr.recipes.views import Views


def smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference in grey levels, away from the borders."""
    return float(np.abs(one.astype(float) - other)[8:-8, 8:-8].mean())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of different sizes, one of them smaller than the crops, each its own reference."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part in ("input", "ref"):
        (folder / part).mkdir()
    for i, size in enumerate([(96, 130), (40, 64), (128, 96), (63, 121)]):
        photo = Image.fromarray(smooth(rng, *size))
        for part in ("input", "ref"):
            photo.save(folder / part / f"{i}.png")
    return folder


def samples(folder, **changes) -> TrainingSamples:
    settings = dict(stage="rec", crop=48, reference_side=64, shuffle="none", flip_rotate=False, steps=8, batch=2)
    config = TrainingConfig(data=str(folder), out="unused", workers=0, **(settings | changes))
    return TrainingSamples(load_pairs(folder), config)


def test_photos_of_any_size_give_samples_of_one_size(photos):
    for sample in (samples(photos)[i] for i in range(4)):
        shapes = {name: tuple(value.shape) for name, value in sample.items()}
        assert shapes == {"lr": (3, 12, 12), "upsampled": (3, 48, 48), "hr": (3, 48, 48), "reference": (3, 64, 64)}


def test_crops_are_cut_from_the_whole_photos_lr_image_and_its_enlargement(photos):
    config = dict(stage="sife", crop=32)
    one = samples(photos, **config)
    for i in range(8):
        sample, place = one[i], one.places[one.order[i]]
        low = one.photos.low(place)
        enlarged, sharp = degrade.upscale_bicubic(low), one.photos.sharp(place)
        corners = [
            (top, left)
            for top in range(low.shape[0] - 7)
            for left in range(low.shape[1] - 7)
            if torch.equal(to_tensor(low[top : top + 8, left : left + 8]), sample["lr"])
        ]
        assert len(corners) == 1
        ((top, left),) = ((4 * top, 4 * left) for top, left in corners)
        assert torch.equal(sample["upsampled"], to_tensor(enlarged[top : top + 32, left : left + 32]))
        assert torch.equal(sample["hr"], to_tensor(sharp[top : top + 32, left : left + 32]))


def test_stage_sife_draws_photos_by_their_area(photos):
    one = samples(photos, stage="sife", crop=16)
    shares = np.bincount([number for number, _ in one.places], minlength=4) / len(one.places)
    areas = np.array([96 * 130, 40 * 64, 128 * 96, 63 * 121])
    np.testing.assert_allclose(shares, areas / areas.sum(), atol=0.01)
    assert {k for _, k in one.places} == {0, 1}  # inputs and references


def test_photos_are_decoded_once_as_far_as_memory_allows(photos, monkeypatch):
    decoded = []
    intact = Photos.decode
    monkeypatch.setattr(Photos, "decode", lambda self, place: decoded.append(place) or intact(self, place))
    roomy, narrow = Photos(load_pairs(photos), 1), Photos(load_pairs(photos), 0.08)
    for store in (roomy, roomy, narrow, narrow):
        for i in range(4):
            store.sharp((i, 0))
    assert len(decoded) == 4 + 4 + 1  # in 80 KiB there is room for three
    assert sum(photo.nbytes for photo in narrow.kept.values()) <= 0.08 * 2**20


def test_an_unreadable_photo_is_named(photos, tmp_path):
    (tmp_path / "broken.png").write_bytes((photos / "input" / "0.png").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"^broken: .*broken\.png"):
        Photos(load_pairs(tmp_path), 1).sharp((0, 0))


def test_bad_photos_are_skipped_and_counted_on_request(photos, tmp_path):
    for part in ("input", "ref"):
        shutil.copytree(photos / part, tmp_path / part)
    for name in ("input/1.png", "ref/2.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:300])
    config = TrainingConfig(data="x", out="y", held_back=1, skip_bad=True, validate_on=str(tmp_path / "input"))
    with pytest.warns(UserWarning, match="skipped: 1: "):
        drawn = [samples(tmp_path, skip_bad=True)[i] for i in range(4)]
    assert sum(sample["bad"].item() for sample in drawn) >= 2
    assert len(samples(tmp_path, skip_bad=True, stage="sife", crop=16).places) > 0
    model = FRFSR(FRFSRConfig.tiny())
    with pytest.warns(UserWarning, match="skipped: 2: "):
        scores, rows = Validation(model, load_pairs(tmp_path), config)()
    assert len(rows) == 2  # pairs 1 and 2 have a bad photo
    assert scores["psnr_photos"] > 10


def test_a_view_at_zoom_one_is_the_photo_itself():
    image = smooth(np.random.default_rng(1), 64, 80)
    assert np.array_equal(view(image, 32, (30, 40)), image[14:46, 24:56])
    assert np.array_equal(view(image, 32, (0, 80)), image[:32, 48:])  # moved inside
    assert np.array_equal(view(image, 64, (9, 9)), image[:, :64])


@pytest.mark.parametrize("zoom", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("degrees", [0, 15])
def test_a_view_shows_the_content_zoomed_and_turned(zoom, degrees):
    y, x = np.mgrid[:200, :200].astype(float) - 99.5
    smile = (127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 13 + x / 30))[..., None].repeat(3, -1)
    shown = view(smile.round().astype(np.uint8), 64, (100, 100), zoom, degrees)
    v, u = (np.mgrid[:64, :64].astype(float) - 31.5) / zoom
    angle = np.deg2rad(degrees)
    x, y = np.cos(angle) * u - np.sin(angle) * v, np.sin(angle) * u + np.cos(angle) * v
    expected = (127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 13 + x / 30))[..., None].repeat(3, -1)
    assert difference(shown, expected) < 2.5


def test_reducing_is_antialiased():
    checkerboard = (255 * (np.indices((160, 160)).sum(0) % 2))[..., None].repeat(3, -1).astype(np.uint8)
    assert view(checkerboard, 64, (80, 80), zoom=0.6).std() < 15 < checkerboard.std()


def test_mirrored_windows_continue_at_the_border():
    image = np.arange(4)[None, :, None].repeat(3, -1).repeat(3, 0)
    assert mirrored(image, 0, -3, 1, 12)[0, :, 0].tolist() == [2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0, 0]


def test_references_from_elsewhere_show_what_the_crop_shows(photos):
    """At a share of 0 the reference is the photo itself around the crop; else zoomed, turned and in other colours."""
    plain, changed = (samples(photos, crop=32, reference_share=share, reference_zoom=(0.9, 1.1)) for share in (0, 1))
    turned = samples(photos, crop=32, reference_share=1, reference_turn=15, reference_colour=0.2)
    for i in range(4):
        sample = plain[i]
        windows = sample["reference"].unfold(1, 32, 1).unfold(2, 32, 1)
        distance = (windows - sample["hr"][:, None, None]).abs().mean((0, 3, 4))
        assert distance.min() == 0, "the reference holds the crop"
        for other in (changed[i], turned[i]):
            assert torch.equal(other["hr"], sample["hr"])
            assert not torch.equal(other["reference"], sample["reference"])
    assert torch.equal(turned[3]["reference"], turned[3]["reference"])


def test_degraded_samples_are_functions_of_their_number_with_clean_references(photos):
    clean, one, other = (samples(photos, degradation=by)[2] for by in (None, {"clean_share": 0}, {"clean_share": 0}))
    for name in ("lr", "upsampled", "hr", "reference"):
        assert torch.equal(one[name], other[name])
        assert torch.equal(one[name], clean[name]) == (name in ("hr", "reference"))
    assert (one["lr"] - clean["lr"]).abs().mean() < 0.2
    nearly_clean = samples(photos, degradation={"clean_share": 1})[2]
    torch.testing.assert_close(nearly_clean["lr"], clean["lr"], rtol=0, atol=1.5 / 255)


def test_the_own_reference_of_a_degraded_sample_is_its_enlarged_lr_image(photos):
    sample = samples(photos, degradation={"clean_share": 0}, own_share=1.0, reference_side=48)[0]
    torch.testing.assert_close(sample["reference"], sample["upsampled"], rtol=0, atol=2 / 255)


def test_colours_stay_in_range():
    image, rng = torch.rand(3, 9, 9), np.random.default_rng(0)
    for _ in range(20):
        changed = recolour(image, 0.3, rng)
        assert (changed >= 0).all()
        assert (changed <= 1).all()
    assert torch.equal(recolour(image, 0.0, rng), image)


def test_base_images_are_drawn_from_own_bicubic_and_better_ones(small_model):
    rng = np.random.default_rng(0)
    drawn = torch.stack([drawn_mix((0.5, 0.2, 0.3), rng) for _ in range(2000)])
    assert torch.allclose(drawn.sum(1), torch.ones(2000))
    own, bicubic, better = drawn[:, 0] == 1, drawn[:, 1] == 1, drawn[:, 2] > 0
    for kind, share in ((own, 0.5), (bicubic, 0.2), (better, 0.3)):
        assert kind.float().mean() == pytest.approx(share, abs=0.04)
    assert drawn[:, 2].max() <= 0.5
    lr, truth = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 32, 32)
    upsampled = F.interpolate(lr, scale_factor=4)
    mix = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.75, 0, 0.25]])
    with torch.no_grad():
        own_base = small_model(lr, None, upsampled).image
        base = base_image(small_model, {"lr": lr, "upsampled": upsampled, "hr": truth, "base_mix": mix})["base"]
        torch.testing.assert_close(base[0], own_base[0])
        torch.testing.assert_close(base[1], upsampled[1])
        torch.testing.assert_close(base[2], own_base[2] + 0.25 * (truth[2] - own_base[2]))
        refined = small_model(lr, truth, upsampled, base=base).image
        ours = small_model(lr, truth, upsampled, base=own_base).image
        torch.testing.assert_close(ours, small_model(lr, truth, upsampled).image)
    assert not torch.allclose(refined[1], ours[1])


def test_every_number_comes_once_an_epoch():
    order = Order(7, seed=3)
    epochs = [[order[7 * epoch + i] for i in range(7)] for epoch in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 2
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("zoom", [0.6, 1.7])
def test_views_at_another_zoom_lie_where_their_coordinates_say(photos, zoom):
    config = MatchingConfig(
        data="x", out="y", stage="teacher", size=64, jitter=6, zoom=(zoom, zoom), turn=20, workers=0
    )
    views = Views(load_pairs(photos), config, length=4, seed=0)
    for sample in (views[i] for i in range(4)):
        place = sample["coordinates"]
        inside = ((place > 4) & (place < 59)).all(-1)
        assert inside.sum() > 300
        found = F.grid_sample(sample["image2"][None], 2 * place[None] / 63 - 1, align_corners=True)[0]
        assert (found - sample["image1"]).abs()[:, inside].mean() < 0.04
        step = place[1:, 1:] - place[:-1, :-1]  # along the diagonal
        assert step.norm(dim=-1).mean() / 2**0.5 == pytest.approx(zoom, rel=0.2)


def test_a_data_set_is_known_by_its_content(photos, tmp_path):
    moved = tmp_path / "moved"
    moved.symlink_to(photos)
    assert fingerprint(load_pairs(moved)) == fingerprint(load_pairs(photos))
    assert fingerprint(load_pairs(photos).select(range(3))) != fingerprint(load_pairs(photos))
