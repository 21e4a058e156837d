"""What the Triton kernels of deform_conv share: where a tap samples, the sample, and the matching weights."""

import triton
import triton.language as tl


@triton.jit
def tap_positions(
    offset,
    offset_channel,
    offset_pixel,
    mask,
    mask_channel,
    mask_pixel,
    flow,
    pixel,
    group,
    tap,
    height,
    width,
    x_height,
    x_width,
    scale,
    ALL_GROUPS: tl.constexpr,
    HAS_FLOW: tl.constexpr,
    SAME: tl.constexpr,
):
    """Sampling positions y, x and modulation of one tap: (P,) output pixels and (G,) groups -> (P, G) float32 each."""
    inside = (pixel < height * width)[:, None] & (group < ALL_GROUPS)[None, :]
    i = tap // 3
    j = tap % 3
    row = pixel // width
    column = pixel % width
    y = (row + i - 1).to(tl.float32)
    x = (column + j - 1).to(tl.float32)
    if HAS_FLOW:
        flow_height = height // scale
        flow_width = width // scale
        flow_row = row // scale - i
        flow_column = column // scale - j
        if SAME:
            flow_row = tl.minimum(tl.maximum(flow_row + 1, 0), flow_height - 1)
            flow_column = tl.minimum(tl.maximum(flow_column + 1, 0), flow_width - 1)
        voted = (flow_row >= 0) & (flow_column >= 0) & (pixel < height * width)
        slot = flow + 2 * (flow_row * flow_width + flow_column)
        x += scale * tl.load(slot, mask=voted, other=0.0)
        y += scale * tl.load(slot + 1, mask=voted, other=0.0)
    entry = group[None, :] * 9 + tap
    offset += pixel.to(tl.int64)[:, None] * offset_pixel + 2 * entry * offset_channel
    mask += pixel.to(tl.int64)[:, None] * mask_pixel + entry * mask_channel
    y = y[:, None] + tl.load(offset, mask=inside, other=0.0).to(tl.float32)
    x = x[:, None] + tl.load(offset + offset_channel, mask=inside, other=0.0).to(tl.float32)
    # Positions beyond one pixel outside sample nothing; clamped, they fit an integer.
    y = tl.minimum(tl.maximum(y, -2.0), x_height + 1.0)
    x = tl.minimum(tl.maximum(x, -2.0), x_width + 1.0)
    return y, x, tl.load(mask, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def corner_pixel(y, x, height, width, DOWN: tl.constexpr, RIGHT: tl.constexpr):
    """One of the four pixels around (y, x): its index, whether it exists, and its linear weights along y and x."""
    top = tl.floor(y)
    left = tl.floor(x)
    row = top.to(tl.int32) + DOWN
    column = left.to(tl.int32) + RIGHT
    exists = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    along_y = y - top if DOWN else 1 - (y - top)
    along_x = x - left if RIGHT else 1 - (x - left)
    return row * width + column, exists, along_y, along_x


@triton.jit
def sample_taps(
    image, y, x, modulation, group, c, height, width, ALL_GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr
):
    """Modulated bilinear samples of a channels-last image: positions (P, G), channels (K,) -> (P, G, K) float32."""
    channel = group[:, None] * GROUP_CHANNELS + c[None, :]
    real = (group < ALL_GROUPS)[:, None] & (c < GROUP_CHANNELS)[None, :]
    total = tl.zeros((y.shape[0], y.shape[1], c.shape[0]), tl.float32)
    for corner in tl.static_range(4):
        index, exists, along_y, along_x = corner_pixel(y, x, height, width, corner // 2, corner % 2)
        values = tl.load(
            image + (index.to(tl.int64) * (ALL_GROUPS * GROUP_CHANNELS))[:, :, None] + channel[None, :, :],
            mask=exists[:, :, None] & real[None, :, :],
            other=0.0,
        )
        total += values.to(tl.float32) * (along_y * along_x * modulation)[:, :, None]
    return total


@triton.jit
def weight_slots(
    tap,
    start_group,
    start_channel,
    o,
    ALL_GROUPS: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr,
    ALL_OUTPUTS: tl.constexpr,
    GROUPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Offsets into the packed weights (9, G, C/G, O) of a tile (GROUPS*CHANNELS, O), and which of them exist."""
    k = tl.arange(0, GROUPS * CHANNELS)
    group = start_group + k // CHANNELS
    c = start_channel + k % CHANNELS
    row = (tap * ALL_GROUPS + group) * GROUP_CHANNELS + c
    real = ((group < ALL_GROUPS) & (c < GROUP_CHANNELS))[:, None] & (o < ALL_OUTPUTS)[None, :]
    return row[:, None] * ALL_OUTPUTS + o[None, :], real
