"""What the Triton kernels of deform_conv share: where a tap samples, the sample, and the matching weights."""

import triton
import triton.language as tl


@triton.jit
def tap_positions(operands, batch, pixel, group, tap, LAYER: tl.constexpr):
    """Sampling positions y, x and modulation of one tap: (P,) output pixels and (G,) groups -> (P, G) float32 each."""
    pixels = operands.height * operands.width
    inside = (pixel < pixels)[:, None] & (group < LAYER.groups)[None, :]
    i = tap // 3
    j = tap % 3
    row = pixel // operands.width
    column = pixel % operands.width
    y = (row + i - 1).to(tl.float32)
    x = (column + j - 1).to(tl.float32)
    if operands.flow is not None:
        scale = operands.scale
        flow_height = operands.height // scale
        flow_width = operands.width // scale
        flow_row = row // scale - i
        flow_column = column // scale - j
        if LAYER.match_padding == "same":
            flow_row = tl.minimum(tl.maximum(flow_row + 1, 0), flow_height - 1)
            flow_column = tl.minimum(tl.maximum(flow_column + 1, 0), flow_width - 1)
        voted = (flow_row >= 0) & (flow_column >= 0) & (pixel < pixels)
        flow = operands.flow + batch * (2 * flow_height * flow_width)
        slot = flow + 2 * (flow_row * flow_width + flow_column)
        x += scale * tl.load(slot, mask=voted, other=0.0)
        y += scale * tl.load(slot + 1, mask=voted, other=0.0)
    entry = group[None, :] * 9 + tap
    offset = operands.offset + batch * operands.offset_batch
    offset += pixel.to(tl.int64)[:, None] * operands.offset_pixel + 2 * entry * operands.offset_channel
    mask = operands.mask + batch * operands.mask_batch
    mask += pixel.to(tl.int64)[:, None] * operands.mask_pixel + entry * operands.mask_channel
    y = y[:, None] + tl.load(offset, mask=inside, other=0.0).to(tl.float32)
    x = x[:, None] + tl.load(offset + operands.offset_channel, mask=inside, other=0.0).to(tl.float32)
    # Positions beyond one pixel outside sample nothing; clamped, they fit an integer.
    y = tl.minimum(tl.maximum(y, -2.0), operands.x_height + 1.0)
    x = tl.minimum(tl.maximum(x, -2.0), operands.x_width + 1.0)
    return y, x, tl.load(mask, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def corner_pixel(y, x, operands, DOWN: tl.constexpr, RIGHT: tl.constexpr):
    """One of the four pixels of x around (y, x): its index, whether it exists, and its linear weights along y and x."""
    top = tl.floor(y)
    left = tl.floor(x)
    row = top.to(tl.int32) + DOWN
    column = left.to(tl.int32) + RIGHT
    exists = (row >= 0) & (row < operands.x_height) & (column >= 0) & (column < operands.x_width)
    along_y = y - top if DOWN else 1 - (y - top)
    along_x = x - left if RIGHT else 1 - (x - left)
    return row * operands.x_width + column, exists, along_y, along_x


@triton.jit
def sample_taps(operands, batch, y, x, modulation, group, c, LAYER: tl.constexpr):
    """Modulated bilinear samples of x: positions (P, G), channels (K,) -> (P, G, K) float32."""
    channels = LAYER.groups * LAYER.group_channels
    image = operands.x + batch * operands.x_height * operands.x_width * channels
    channel = group[:, None] * LAYER.group_channels + c[None, :]
    real = (group < LAYER.groups)[:, None] & (c < LAYER.group_channels)[None, :]
    total = tl.zeros((y.shape[0], y.shape[1], c.shape[0]), tl.float32)
    for corner in tl.static_range(4):
        index, exists, along_y, along_x = corner_pixel(y, x, operands, corner // 2, corner % 2)
        values = tl.load(
            image + (index.to(tl.int64) * channels)[:, :, None] + channel[None, :, :],
            mask=exists[:, :, None] & real[None, :, :],
            other=0.0,
        )
        total += values.to(tl.float32) * (along_y * along_x * modulation)[:, :, None]
    return total


@triton.jit
def weight_slots(tap, start_group, start_channel, o, LAYER: tl.constexpr, TILE: tl.constexpr):
    """Offsets into the packed weights (9, G, C/G, O) of a tile (groups * channels, O), and which of them exist."""
    k = tl.arange(0, TILE.groups * TILE.channels)
    group = start_group + k // TILE.channels
    c = start_channel + k % TILE.channels
    row = (tap * LAYER.groups + group) * LAYER.group_channels + c
    real = ((group < LAYER.groups) & (c < LAYER.group_channels))[:, None] & (o < LAYER.outputs)[None, :]
    return row[:, None] * LAYER.outputs + o[None, :], real
