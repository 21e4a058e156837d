"""patch_argmax: the best patch is found, wherever it lies, in every implementation."""

from pathlib import Path

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from frfsr.kernels import _match_cpu, match, patch_argmax
from frfsr.kernels._constants import EPSILON
from frfsr.kernels._match_cpu import BLOCK_ELEMENTS, patch_argmax_cpu
from frfsr.kernels.match import patch_argmax_reference

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCES = [  # dtype, regret, error of the score
    (torch.float32, 1e-6, 1e-5),
    (torch.float16, 1e-4, 1e-4),
    (torch.bfloat16, 1e-4, 1e-4),
]
SHAPES = [  # batch, channels, query height and width, key height and width
    (1, 16, 11, 13, 7, 17),
    (3, 5, 3, 9, 5, 3),
    (2, 3, 3, 3, 3, 3),
    (1, 70, 4, 5, 37, 4),
    (1, 1, 5, 131, 3, 67),
]

pytestmark = pytest.mark.usefixtures("poisoned")


def similarities(query: torch.Tensor, key: torch.Tensor, patch_size: int = 3) -> torch.Tensor:
    """All scores in float64, (B, queries, keys)."""
    patches = [F.unfold(feature.double().cpu(), patch_size) for feature in (query, key)]
    patches = [patch / (patch.norm(dim=1, keepdim=True) + EPSILON) for patch in patches]
    return torch.einsum("b c q, b c k -> b q k", *patches)


def check(
    query: torch.Tensor, key: torch.Tensor, regret: float, error: float, search=patch_argmax, patch_size=3
) -> None:
    """The score is right, and no other patch is better than the chosen one by more than ``regret``."""
    score, index = (result.cpu() for result in search(query, key, patch_size))
    truth = similarities(query, key, patch_size)
    chosen = truth.gather(2, rearrange(index, "b h w -> b (h w) 1"))
    assert (truth.amax(dim=2) - chosen.squeeze(2)).max() <= regret
    torch.testing.assert_close(score.flatten(1).double(), truth.amax(dim=2), atol=error, rtol=0)
    assert score.dtype == torch.float32
    assert index.dtype == torch.int64
    assert index.shape == score.shape == (len(query), query.shape[2] - patch_size + 1, query.shape[3] - patch_size + 1)


def pair(shape: tuple[int, ...], device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    batch, channels, *sides = shape
    generator = torch.Generator().manual_seed(sum(shape))
    sizes = [(batch, channels, *sides[:2]), (batch, channels, *sides[2:])]
    return [torch.randn(size, generator=generator).to(device, dtype) for size in sizes]


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "regret", "error"), TOLERANCES)
def test_the_best_patch_is_found(device, dtype, regret, error, shape):
    check(*pair(shape, device, dtype), regret, error)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tf32_stays_within_its_regret():
    precision = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        check(*pair((2, 64, 40, 41, 39, 150), "cuda"), regret=1e-3, error=2e-3)
    finally:
        torch.backends.cuda.matmul.fp32_precision = precision


def test_layout_does_not_matter(device):
    query, key = pair((2, 8, 9, 14, 10, 9), device)
    expected = patch_argmax(query[:, ::2, 1:, ::2].contiguous(), key[:, ::2].contiguous())
    sliced = patch_argmax(query[:, ::2, 1:, ::2], key[:, ::2])
    last = patch_argmax(
        query[:, ::2, 1:, ::2].contiguous(memory_format=torch.channels_last),
        key[:, ::2].contiguous(memory_format=torch.channels_last),
    )
    for result in (sliced, last):
        torch.testing.assert_close(result[0], expected[0], atol=1e-6, rtol=0)
        assert torch.equal(result[1], expected[1])


@pytest.mark.parametrize("case", ["a", "b", "c", "d"])
def test_published_matches(device, case, request):
    if case == "b" and "interpret" in request.node.callspec.id:
        pytest.skip("the interpreter is slow: the other cases are smaller")
    golden = load_file(GOLDEN / f"01_match_{case}.safetensors")
    score, index = patch_argmax(golden["query"][None].to(device), golden["ref"][None].to(device))
    clear = golden["gap"] > 1e-5
    assert clear.float().mean() > 0.99
    assert torch.equal(index[0].cpu()[clear], golden["index"][clear])
    torch.testing.assert_close(score[0].cpu(), golden["score"], atol=1e-5, rtol=0)


def test_published_ties(device):
    golden = load_file(GOLDEN / "01_match_ties.safetensors")
    score, index = patch_argmax(golden["query"][None].to(device), golden["ref"][None].to(device))
    assert torch.equal(index[0].cpu(), golden["index"])
    torch.testing.assert_close(score[0].cpu(), golden["score"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(3, 300), (35, 6), (20, 40)])
def test_equal_patches_lose_to_the_first(device, size, monkeypatch, request):
    """Copies lie in other blocks and tiles than the original, and still tie exactly."""
    monkeypatch.setattr(_match_cpu, "BLOCK_ELEMENTS", 700)
    monkeypatch.setattr(_match_cpu, "BLOCK_SIDE", 4)
    generator = torch.Generator().manual_seed(0)
    tile = torch.randn(1, 6, 5, 5, generator=generator)
    if "interpret" in request.node.callspec.id:
        # On some processors NumPy's products, which stand in for the tensor cores, round equal columns unequally.
        tile = (8 * tile).round()
    key = tile.repeat(1, 1, 8, 60)[:, :, : size[0], : size[1]].to(device)
    index = patch_argmax(key[..., :5, :9], key)[1].cpu()
    row, column = index // (size[1] - 2), index % (size[1] - 2)
    assert row.max() < 5
    assert column.max() < 5


def test_zeros_score_zero_at_the_first_patch(device):
    query, key = pair((1, 4, 6, 7, 5, 8), device)
    for zero_query, zero_key in ((query * 0, key), (query, key * 0), (query * 0, key * 0)):
        score, index = patch_argmax(zero_query, zero_key)
        assert not score.any()
        assert not index.any()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e15, 1e30])
def test_magnitude_neither_overflows_nor_drowns(device, scale):
    query, key = pair((1, 4, 6, 7, 5, 8), device)
    check(query * scale, key * scale, regret=1e-6, error=1e-5)
    check(query * scale, key, regret=1e-6, error=1e-5)
    _, index = patch_argmax(query * scale, key)
    assert torch.equal(index, patch_argmax(query, key)[1])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_values_are_never_matched(device, bad):
    query, key = pair((2, 4, 7, 8, 6, 9), device)
    query[0, 1, 3, 4] = bad
    key[0, 2, 2, 2] = bad
    key[1] = bad
    score, index = patch_argmax(query, key)
    spoilt = torch.zeros(5, 6, dtype=torch.bool)
    spoilt[1:4, 2:5] = True
    assert torch.equal(score[0].isnan().cpu(), spoilt)
    assert score[1].isnan().all()
    assert not index[0].cpu()[spoilt].any()
    assert not index[1].any()
    row, column = index[0].cpu()[~spoilt] // 7, index[0].cpu()[~spoilt] % 7
    assert not ((row <= 2) & (column <= 2)).any()
    reference = patch_argmax_reference(query, key)
    assert torch.equal(index, reference[1])
    torch.testing.assert_close(score, reference[0], atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("patch_size", [1, 2, 5])
def test_other_patch_sizes(patch_size):
    query, key = pair((2, 4, 7, 8, 6, 9))
    check(query, key, 1e-6, 1e-5, search=patch_argmax_cpu, patch_size=patch_size)


@settings(max_examples=30, deadline=None)
@given(
    sides=st.tuples(*[st.integers(3, 12)] * 4),
    channels=st.integers(1, 9),
    block=st.sampled_from([1, 200, 2**18]),
    block_side=st.sampled_from([1, 4, 16]),
    levels=st.sampled_from([2, 1000]),
    seed=st.integers(0, 2**16),
)
def test_blocks_agree_with_the_definition(sides, channels, block, block_side, levels, seed):
    """With few levels many patches tie."""
    generator = torch.Generator().manual_seed(seed)
    query, key = (
        torch.randint(levels, (1, channels, *size), generator=generator).float() for size in (sides[:2], sides[2:])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_match_cpu, "BLOCK_ELEMENTS", block)
        patch.setattr(_match_cpu, "BLOCK_SIDE", block_side)
        check(query, key, 1e-6, 1e-5, search=patch_argmax_cpu)
        score, index = patch_argmax_cpu(key, key)
    itself = torch.arange(index.numel()).view_as(index)
    seen = key.unfold(2, 3, 1).unfold(3, 3, 1).square().sum(dim=(1, 4, 5)) > 0
    assert (index <= itself)[seen].all()
    torch.testing.assert_close(score[seen], torch.ones_like(score[seen]), atol=3e-5, rtol=0)


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_large_key_grids(where):
    """512 x 384 patches: the query is a cut from the far corner and must be found there, to the pixel."""
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    key = torch.randn(1, 8, 514, 386, generator=torch.Generator().manual_seed(0)).to(where)
    _, index = patch_argmax(key[..., 505:514, 377:386], key)
    row, column = torch.arange(505, 512), torch.arange(377, 384)
    assert torch.equal(index[0].cpu(), row[:, None] * 384 + column)


class Allocations(TorchDispatchMode):
    """The largest tensor that any operator returns, in elements."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.untyped_storage().nbytes() // 4 for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.largest = max(self.largest, *sizes, 0)
        return result


def test_memory_is_linear_in_the_images():
    query, key = pair((1, 4, 60, 70, 65, 50))
    with Allocations() as allocations:
        patch_argmax_cpu(query, key)
    assert allocations.largest < 5 * BLOCK_ELEMENTS < 60 * 70 * 65 * 50 / 8


@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="needs a processor with bfloat16 matrix units")
def test_bfloat16_products_are_summed_in_float32():
    query, key = pair((1, 64, 9, 30, 8, 31), dtype=torch.bfloat16)
    before = torch.backends.mkldnn.matmul.fp32_precision
    score, _ = patch_argmax_cpu(query, key)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    torch.testing.assert_close(score, patch_argmax_cpu(query.float(), key.float())[0], atol=1e-6, rtol=0)


def test_operator_is_registered_correctly():
    torch.library.opcheck(torch.ops.frfsr.patch_argmax.default, (*pair((2, 3, 5, 6, 4, 7)), 3))


def test_works_under_compile_and_autocast(device):
    query, key = pair((1, 8, 9, 8, 7, 9), device)
    expected = patch_argmax(query, key)
    compiled = torch.compile(patch_argmax, backend="aot_eager", fullgraph=True)(query, key)
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = patch_argmax(query, key)
    for result in (compiled, cast):
        torch.testing.assert_close(result, expected, atol=0, rtol=0)


def test_a_choice_has_no_gradient():
    query, key = pair((1, 2, 4, 4, 4, 4))
    score, _ = patch_argmax(query.requires_grad_(), key.requires_grad_())
    assert not score.requires_grad


def test_reference_can_be_forced(monkeypatch):
    called = []
    monkeypatch.setattr(
        match, "patch_argmax_reference", lambda *args: called.append(1) or patch_argmax_reference(*args)
    )
    monkeypatch.setenv("FRFSR_KERNELS", "reference")
    check(*pair((1, 2, 4, 5, 6, 4)), 1e-6, 1e-5)
    assert called


@pytest.mark.parametrize(
    ("query", "key", "message"),
    [
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4), "one dtype"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(2, 4, 4), "one dtype"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4).half(), "one dtype"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 9), "at least"),
    ],
)
def test_misfits_are_refused(query, key, message):
    with pytest.raises(ValueError, match=message):
        patch_argmax(query, key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_maps_are_searched_at_once_and_the_same(monkeypatch, dtype):
    query, key = (torch.randn(2, 6, *size, dtype=dtype) for size in ((7, 9), (11, 8)))
    score, index = patch_argmax_cpu(query, key)
    monkeypatch.setattr(_match_cpu, "SMALL_ELEMENTS", 0)
    by_row = patch_argmax_cpu(query, key)
    torch.testing.assert_close(score, by_row[0], rtol=1e-6, atol=1e-7)  # products round by how their rows are aligned
    assert torch.equal(index, by_row[1])
