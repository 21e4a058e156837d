"""refine_flow: every implementation by its regret against the definition in float64, known shifts, plain loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frfsr.kernels import refine, refine_flow
from frfsr.kernels._constants import BLOCK, MARGIN, SCALE
from frfsr.kernels._refine_cpu import steps_within, transformed
from frfsr.kernels.refine import refine_flow_reference, step_scores

REGRET = 2e-6  # of float32: scores are sums of 256 products of deviations
SHAPES = [  # batch, flow height and width, key height and width, radius
    (1, 1, 1, 4, 4, 1),
    (2, 3, 4, 28, 16, 2),
    (1, 2, 3, 21, 50, 4),
    (3, 4, 1, 1, 9, 2),
    (1, 7, 3, 12, 31, 0),
]

pytestmark = pytest.mark.usefixtures("poisoned")


def textures(batch: int, height: int, width: int, seed: int) -> Tensor:
    """Smooth luma (B, 1, H, W) in [0, 1] of any size."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 1, -(-height // 4), -(-width // 4), generator=generator)
    fine = F.interpolate(coarse, scale_factor=4, mode="bicubic", align_corners=False)
    return fine[..., :height, :width].clamp(0, 1)


def inputs(shape: tuple[int, ...], device: str = "cpu", reach: float = 0) -> tuple[Tensor, Tensor, Tensor, int]:
    """Flow to positions inside the key, then moved by up to ``reach``; both images; the radius."""
    batch, height, width, key_height, key_width, radius = shape
    generator = torch.Generator().manual_seed(sum(shape))
    size = torch.tensor([-(-key_width // 4), -(-key_height // 4)])
    position = (torch.rand(batch, height, width, 2, generator=generator) * size).floor()
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    flow = position - torch.stack([column, row], dim=-1)
    flow += reach * (2 * torch.rand(flow.shape, generator=generator) - 1)
    query, key = textures(batch, 4 * height, 4 * width, 1), textures(batch, key_height, key_width, 2)
    return flow.to(device), query.to(device), key.to(device), radius


def similarities(flow: Tensor) -> Tensor:
    """Turns and scales in eighths, so that places between pixels are exact, and as near to two pixels, everywhere."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(-8, 9, flow.shape, generator=generator).to(flow) / 8 + flow.new_tensor([1, 0])


def check(flow: Tensor, query: Tensor, key: Tensor, radius: int, similarity: Tensor | None = None) -> None:
    """Each step is within the radius, from the right position, and as good as the best one."""
    refined = refine_flow(flow, query, key, radius, similarity)
    assert refined.shape == flow.shape
    assert refined.dtype == torch.float32
    exact = [tensor.double().cpu() for tensor in (flow, query, key)]
    turn = refine.identity(exact[0]) if similarity is None else similarity.double().cpu()
    scores, steps = step_scores(*exact, radius, turn), steps_within(radius)
    moved = 4 * (refined.double().cpu() - refine_flow_reference(*exact, 0, turn))
    leads_there = torch.stack([(transformed(step.double(), turn) == moved).all(-1) for step in steps], dim=1)
    assert leads_there.any(1).all()
    regret = scores.amax(1) - scores.where(leads_there, -torch.inf).amax(1)
    assert regret.max() < REGRET


@pytest.mark.parametrize("shape", SHAPES)
def test_regret(device: str, shape: tuple[int, ...]) -> None:
    check(*inputs(shape, device))


@pytest.mark.parametrize("shape", SHAPES[::2])
def test_flow_between_pixels_and_beyond_the_key(device: str, shape: tuple[int, ...]) -> None:
    check(*inputs(shape, device, reach=9))


@pytest.mark.parametrize("shape", SHAPES[1:3])
def test_regret_where_the_key_is_turned_and_scaled(device: str, shape: tuple[int, ...]) -> None:
    flow, *rest = inputs(shape, device)
    check(flow, *rest, similarities(flow))


def test_flow_of_any_magnitude_stays_inside(device: str) -> None:
    flow, query, key, radius = inputs((1, 2, 3, 20, 24, 2), device)
    flow[0, 0, 0] = torch.tensor([1e30, -1e30])
    position = flow.new_tensor([5, 0]) - refine_flow(flow, query, key, radius)[0, 0, 0]
    assert position.abs().max() <= radius / SCALE


def test_half_precision_is_widened(device: str) -> None:
    flow, query, key, radius = inputs((1, 2, 3, 20, 24, 2), device)
    halves = [tensor.to(torch.bfloat16) for tensor in (flow, query, key)]
    expected = refine_flow(*(tensor.float() for tensor in halves), radius)
    assert torch.equal(refine_flow(*halves, radius), expected)


def test_more_queries_than_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frfsr.kernels._refine_cpu.QUERIES_AT_ONCE", 7)
    check(*inputs(SHAPES[1]))


def test_float64_equals_the_reference() -> None:
    flow, query, key, radius = inputs(SHAPES[2])
    doubles = flow.double(), query.double(), key.double(), radius
    assert torch.equal(refine_flow(*doubles), refine_flow_reference(*doubles, refine.identity(doubles[0])))


def test_flat_images_stay_where_they_are(device: str) -> None:
    """0.7 is no sum of few powers of two: centred by a mean that is rounded, it leaves a remainder."""
    flow, query, key, radius = inputs((1, 2, 3, 20, 24, 2), device)
    assert torch.equal(refine_flow(flow, torch.full_like(query, 0.7), torch.full_like(key, 0.7), radius), flow)


def refined_by_definition(position: tuple[int, int], at: tuple[int, int], query: Tensor, key: Tensor, radius: int):
    """The step (x, y) in reference pixels of one LR position, matched at LR position ``at`` of the reference."""

    def block(image: Tensor, row: int, column: int) -> Tensor:
        rows, columns = (
            torch.arange(start, start + BLOCK).clamp(0, side - 1)
            for start, side in zip((row, column), image.shape, strict=True)
        )
        values = image[rows[:, None], columns].double()
        return values - values.mean()

    pattern = block(query, 4 * position[0] - MARGIN, 4 * position[1] - MARGIN)
    scores = {}
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            candidate = block(key, 4 * at[0] - MARGIN + y, 4 * at[1] - MARGIN + x)
            cosine = (pattern * candidate).sum() / (pattern.norm() * candidate.norm())
            scores[x, y] = cosine - 1e-4 * (x * x + y * y) ** 0.5
    return max(scores, key=scores.get)


@pytest.mark.parametrize("shift", [(2, 1), (-1, 2)])
def test_a_known_shift_is_found(device: str, shift: tuple[int, int]) -> None:
    """shift: (x, y) in reference pixels. Borders, whose blocks are made of replicated pixels, are left out."""
    query = textures(1, 20, 24, seed=0).to(device)
    key = query.roll(shift, dims=(3, 2))
    flow = refine_flow(query.new_zeros(1, 5, 6, 2), query, key, radius=2)
    assert (flow[:, 2:-2, 2:-2] == flow.new_tensor(shift) / 4).all()


def test_a_turned_and_enlarged_key_is_found(device: str) -> None:
    """A quarter turn and twice the size: what lies (x, y) beside a place lies (-2y, 2x) beside its match."""
    query = textures(1, 40, 48, seed=0)
    key = query.repeat_interleave(2, 2).repeat_interleave(2, 3).rot90(-1, (2, 3)).contiguous()
    row, column = torch.meshgrid(torch.arange(10), torch.arange(12), indexing="ij")
    exact = torch.stack([key.shape[3] / 4 - 0.5 - 2 * (row + 0.5), 2 * column + 0.5], dim=-1)[None]
    flow = exact - torch.stack([column, row], dim=-1)
    near = (flow + torch.tensor([0.5, -0.5])).to(device)  # whole positions, half an LR pixel away
    similarity = flow.new_tensor([0, 2]).expand_as(flow).to(device)
    refined = refine_flow(near, query.to(device), key.to(device), 2, similarity)
    torch.testing.assert_close(refined[:, 3:-3, 3:-3].cpu(), flow[:, 3:-3, 3:-3])


def test_equals_its_definition_up_to_the_borders(device: str) -> None:
    query, key = textures(2, 12, 16, seed=1).to(device), textures(2, 28, 16, seed=2).to(device)
    index = torch.randint(7 * 4, (2, 3, 4), generator=torch.Generator().manual_seed(3))
    row, column = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    flow = torch.stack([index % 4 - column, index // 4 - row], dim=-1).float().to(device)
    steps = 4 * (refine_flow(flow, query, key, radius=2) - flow)
    for b, y, x in [(0, 0, 0), (0, 2, 3), (1, 1, 2), (1, 0, 3), (1, 2, 0), (0, 1, 1)]:
        at = divmod(int(index[b, y, x]), 4)
        expected = refined_by_definition((y, x), at, query[b, 0].cpu(), key[b, 0].cpu(), radius=2)
        assert tuple(steps[b, y, x].int().tolist()) == expected


def test_operator_is_registered_correctly() -> None:
    arguments = inputs(SHAPES[1])
    for similarity in (refine.identity(arguments[0]), similarities(arguments[0])):
        torch.library.opcheck(torch.ops.frfsr.refine_flow.default, (*arguments, similarity))


def test_works_under_compile_and_autocast(device: str) -> None:
    arguments = inputs((2, 2, 3, 12, 16, 1), device)
    expected = refine_flow(*arguments)
    compiled = torch.compile(refine_flow, backend="aot_eager", fullgraph=True)(*arguments)
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = refine_flow(*arguments)
    for result in (compiled, cast):
        torch.testing.assert_close(result, expected, atol=0, rtol=0)


def test_a_choice_has_no_gradient() -> None:
    flow, query, key, radius = inputs(SHAPES[1])
    assert not refine_flow(flow.requires_grad_(), query.requires_grad_(), key.requires_grad_(), radius).requires_grad


def test_reference_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    reference = refine.refine_flow_reference
    monkeypatch.setattr(refine, "refine_flow_reference", lambda *args: called.append(1) or reference(*args))
    monkeypatch.setenv("FRFSR_KERNELS", "reference")
    refine_flow(*inputs(SHAPES[1]))
    assert called


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow": torch.zeros(1, 2, 3, 3)}, "flow"),
        ({"query": torch.zeros(1, 1, 8, 8)}, "query"),
        ({"key": torch.zeros(2, 1, 8, 8)}, "key"),
        ({"key": torch.zeros(1, 1, 0, 8)}, "key"),
        ({"radius": -1}, "radius"),
        ({"similarity": torch.zeros(1, 3, 2, 2)}, "similarity"),
    ],
)
def test_misfits_are_refused(change: dict, message: str) -> None:
    fitting = {"flow": torch.zeros(1, 2, 3, 2), "query": torch.zeros(1, 1, 8, 12), "key": torch.zeros(1, 1, 9, 9)}
    with pytest.raises(ValueError, match=message):
        refine_flow(**fitting | {"radius": 1} | change)


@pytest.mark.compile_only
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_compiles_without_spills(compile_kernel, target: str) -> None:
    triton_refine = pytest.importorskip("frfsr.kernels._refine_triton")
    compile_kernel(
        triton_refine.refine_kernel,
        target,
        dict.fromkeys(("flow", "query", "key", "similarity", "refined"), torch.float32),
        triton_refine.CONSTANTS,
        triton_refine.NUM_WARPS,
    )
