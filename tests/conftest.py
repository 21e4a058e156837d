"""Fixtures that several test files use."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def small_model() -> torch.nn.Module:
    """The tiny network made smaller still, with random weights whose output depends on LR and reference alike."""
    from frfsr import FRFSR, FRFSRConfig

    config = FRFSRConfig.tiny(
        encoder_channels=(4, 4, 8),
        texture_channels=(8, 8, 8),
        channels=(8, 8, 8),
        sife_features=8,
        sife_growth=4,
        sife_blocks=1,
        blocks=(1, 1, 1),
    )
    model = FRFSR(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.07, generator=generator)
    return model


@pytest.fixture(scope="session")
def small_model_folder(small_model, tmp_path_factory) -> Path:
    """`small_model` as save_pretrained leaves it."""
    folder = tmp_path_factory.mktemp("model")
    small_model.save_pretrained(folder)
    return folder
