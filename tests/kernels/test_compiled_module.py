"""The four operators inside one module under torch.compile's own compiler: forward and all gradients."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr.kernels import deform_conv, dynamic_filter, flow_warp, patch_argmax
from frfsr.kernels.ddf import FilterNorm


class Alignment(nn.Module):
    """Match, warp, align and filter, with ordinary operations between them for the compiler to fuse."""

    def __init__(self, channels: int):
        super().__init__()
        self.offset_mask = nn.Conv2d(channels, 27, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) / 9)
        self.spatial = nn.Conv2d(channels, 9, 1)
        self.channel = nn.Parameter(torch.randn(channels, 3, 3))
        self.norm = nn.ParameterList([torch.randn(channels, 3, 3) for _ in range(2)] + [torch.randn(9) for _ in "sh"])

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        score, index = patch_argmax(F.pad(query, (1, 1, 1, 1)), F.pad(key, (1, 1, 1, 1)))
        height, width = query.shape[2:]
        x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
        flow = torch.stack([index % key.shape[3] - x.to(index), index // key.shape[3] - y.to(index)], dim=-1).float()
        warped = flow_warp(key, flow)
        offset, mask = self.offset_mask(warped * score[:, None]).tensor_split([18], dim=1)
        aligned = deform_conv(key, offset, mask.sigmoid(), self.weight, flow=flow, match_padding="same")
        channel = self.channel.expand(len(key), -1, -1, -1)
        return dynamic_filter(F.leaky_relu(aligned, 0.1), channel, self.spatial(query), FilterNorm(*self.norm))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_compiled_as_uncompiled(where):
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if where == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler")
    torch.manual_seed(0)
    module = Alignment(8).to(where)
    query, key = torch.randn(2, 8, 9, 11, device=where), torch.randn(2, 8, 12, 10, device=where)

    def results(function) -> list[Tensor]:
        module.zero_grad()
        leaves = [query.clone().requires_grad_(), key.clone().requires_grad_()]
        out = function(*leaves)
        out.square().mean().backward()
        return [out.detach(), *(tensor.grad.clone() for tensor in (*leaves, *module.parameters()))]

    expected = results(module)
    assert all(gradient.abs().max() > 0 for gradient in expected)
    torch.testing.assert_close(results(torch.compile(module, fullgraph=True)), expected, atol=1e-5, rtol=1e-4)
