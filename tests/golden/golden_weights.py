"""Deterministic weights and tensors for the golden cases (no weight files are stored).

    sd = golden_state_dict({key: shape, ...}, seed)       # tensors under the published key names
    x  = golden_tensor("relu1_1", (1, 64, 60, 72), seed)  # standard normal float32 tensor
Generator: numpy.random.default_rng(zlib.crc32(f"{seed}:{key}".encode())), one float64 draw n
(standard normal), scaled in float64, rounded to float32.  First match wins (leaf = last key part):
  mean, std of shape (1,3,1,1)     ImageNet constants of torchvision VGG (not random)
  num_batches_tracked              int64 zero
  running_mean / running_var       0.1*n / uniform(0.5, 1.5)
  any tensor with >= 2 dimensions  n * gain(key) / sqrt(fan_in), fan_in = product of shape[1:]
  bias                             0.5*n if the key contains "l_branch" (DDF), else 0.01*n
  weight, std (1-D)                1 + 0.1*n          (norm scales)
  anything else                    0.1*n
gain(key) is that of the first entry of GAINS whose text occurs in the key, else 1.
"""

import zlib

import numpy as np
import torch

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
GAINS = (
    ("conv_offset_mask", 0.1),  # learned offsets of a few pixels at most
    ("vgg_net.conv", 2.0**0.5),
    ("model.conv", 2.0**0.5),  # VGG: keep the scale through ReLU
    ("conv_body", 0.03),
    ("trunk_conv", 0.03),  # RRDB: the trunk grows by about 1.2**23
    ("l_branch", 0.1),  # DDF spatial_branch / channel_branch: cubic in x
    ("ESA", 1.0),
    ("body_", 0.6),
    ("content_extractor.body", 0.6),  # long residual chains
    ("blk_", 0.6),
    ("decoder.conv_out", 0.1),  # MASA: the same, and an output of order one
    ("out_block", 4.0),  # discriminator head: otherwise nearly constant
)


def _rng(seed, key):
    return np.random.default_rng(zlib.crc32(f"{seed}:{key}".encode()))


def golden_param(key, shape, seed):
    shape, leaf, rng = tuple(int(s) for s in shape), key.rsplit(".", 1)[-1], _rng(seed, key)
    if leaf in IMAGENET and shape == (1, 3, 1, 1):
        return torch.tensor(IMAGENET[leaf], dtype=torch.float32).view(shape)
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if leaf == "running_var":
        return torch.from_numpy((0.5 + rng.random(shape)).astype(np.float32))
    a = rng.standard_normal(shape)
    if len(shape) >= 2:
        a *= next((g for text, g in GAINS if text in key), 1.0) / np.sqrt(float(np.prod(shape[1:])))
    elif leaf == "bias":
        a *= 0.5 if "l_branch" in key else 0.01
    else:
        a = 1 + 0.1 * a if leaf in ("weight", "std") else 0.1 * a
    return torch.from_numpy(a.astype(np.float32))


def golden_state_dict(shapes, seed):
    return {k: golden_param(k, s, seed) for k, s in shapes.items()}


def golden_tensor(name, shape, seed):
    return torch.from_numpy(_rng(seed, "tensor:" + name).standard_normal(tuple(shape)).astype(np.float32))
