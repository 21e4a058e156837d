"""Any single-image network by file, folder or name: a base image for networks with references, or a row of a table."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frfsr.architectures import DTYPES, find_architecture, load, usable_device
from frfsr.checkpoints import CHECKPOINT_ENDINGS, CONFIG, WEIGHTS, HubOptions, find_model, read_checkpoint, read_config
from frfsr.errors import UserError, one_line
from frfsr.network import Network
from frfsr.parts import RRDBNet
from frfsr.peers.single_image import SingleImageNetwork, recognise
from frfsr.states import require_sound, unwrap


class Adapted(SingleImageNetwork):
    """A module from elsewhere, called as our networks are.

    Args:
        module: holds the weights.
        enlarge: LR (B, 3, h, w), RGB in [0, 1], in the dtype of the weights -> (B, 3, 4h, 4w); it may change the LR.
        title: the network's name.
    """

    architecture = "adapted"

    def __init__(self, module: nn.Module, enlarge: Callable[[Tensor], Tensor], title: str):
        super().__init__(None)
        self.module, self.enlarge, self.title = module, enlarge, title

    def image(self, lr: Tensor, upsampled: Tensor | None = None) -> Tensor:
        """Enlarge; see `SingleImageNetwork.image`."""
        weights = next(self.module.parameters())
        # The copy of the result is one that autograd may keep: spandrel computes in inference mode.
        return self.enlarge(lr.to(weights.dtype, copy=True)).to(lr.dtype, copy=True)


def load_single_image(
    name_or_path: str | Path, device: str | torch.device | None = None, dtype: str | None = None, **hub: Any
) -> Network:
    """Load a x4 network that needs no reference, ready for inference.

    Args:
        name_or_path: a checkpoint (.pth, .safetensors, ...) of anything that spandrel knows or of one of our
            single-image architectures; or, with config.json, a folder, a packaged name or a Hub id of the latter.
        device: as torch names it; by default a CUDA GPU if there is one, else the CPU.
        dtype: float32 (default), bfloat16 or float16; a network that cannot compute in it stays in float32.
        **hub: see `frfsr.load`; of a file only how it would be fetched.

    Returns:
        A network with `max_references` = 0.

    Raises:
        UserError: it is not there, no x4 network of RGB images, or cannot be loaded.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    device, kind = usable_device(device), DTYPES[dtype or "float32"]
    path = Path(name_or_path).expanduser()
    if path.name == WEIGHTS and (path.parent / CONFIG).is_file():
        path = name_or_path = path.parent
    options = HubOptions(**hub)
    if path.is_file() or path.suffix in CHECKPOINT_ENDINGS:
        if options.revision is not None or options.subfolder is not None:
            raise UserError(f"{path} is a file, without revisions and subfolders: leave them out.")
        network = from_checkpoint(read_checkpoint(path), str(path), kind)
    else:
        network = from_folder(name_or_path, options).to(kind)
    return network.to(device).eval()


def load_base(name_or_path: str | Path, model: Network, **hub: Any) -> Network:
    """Load a network whose image another network is to refine, on its device and in its dtype.

    Args:
        name_or_path: see `load_single_image`.
        model: the other network.
        **hub: see `frfsr.load`.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: there is no such network, or `model` refines no other network's image.
    """
    require_refining(model)
    weights = next(model.parameters())
    return load_single_image(name_or_path, weights.device, str(weights.dtype).removeprefix("torch."), **hub)


def load_with_base(
    model: Network | str | Path,
    base: Network | str | Path | None,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    **hub: Any,
) -> tuple[Network, Network | None]:
    """Load a network and, if one is given, the network whose image it refines; what is loaded already stays.

    Args:
        model: a network, or what `frfsr.load` takes.
        base: a network, or what `load_single_image` takes.
        device: of the model, see `frfsr.load`.
        dtype: of the model, see `frfsr.load`.
        **hub: of the model, see `frfsr.load`; all but revision and subfolder also of the base.

    Returns:
        Both.

    Raises:
        UserError: there is no such network, `base` needs references, `model` refines no other network's image, or it is
            loaded already and yet comes with what concerns its loading.
    """
    if isinstance(model, Network) and (device is not None or dtype is not None):
        raise UserError("device and dtype are for a model given by name; of a loaded one call .to(device, dtype).")
    network = load(model, device, dtype, **hub) if isinstance(model, str | Path) else model
    if not isinstance(network, Network):
        raise UserError(f"a {type(network).__name__} is no network of frfsr: give one that `frfsr.load` loads.")
    fetched = {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}
    single = load_base(base, network, **fetched) if isinstance(base, str | Path) else base
    if single is not None and not (isinstance(single, Network) and single.max_references == 0):
        raise UserError(f"a {type(single).__name__} is no single-image network, which a base must be.")
    return network, single


def require_refining(model: Network) -> None:
    """Refuse a network that refines no other network's image.

    Args:
        model: any network.

    Raises:
        UserError: `model` takes no base image.
    """
    if model.refines is None:
        raise UserError(f"{model.architecture} cannot refine another network's image: leave out the base.")


def from_folder(name_or_path: str | Path, hub: HubOptions) -> Network:
    """The single-image network of a folder, a packaged name or a Hub id.

    Raises:
        UserError: it is no single-image network.
    """
    files = find_model(name_or_path, hub)
    architecture, values = read_config(files)
    module = find_architecture(architecture).module.from_files(files, values)
    if isinstance(module, RRDBNet):
        return Adapted(module, module.image, architecture)
    if not isinstance(module, Network) or module.max_references != 0:
        raise UserError(f"{files.label} holds {architecture}, which is no single-image network.")
    return module


def from_checkpoint(checkpoint: Mapping[str, Any], label: str, dtype: torch.dtype) -> Network:
    """The network of a published checkpoint, in the dtype if it can compute in that.

    Args:
        checkpoint: tensors by key, wrapped or not.
        label: its name for messages.
        dtype: of the weights.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: the weights are of no network that is known, or not x4 of RGB images.
    """
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{label} is not a checkpoint of weights but a {type(checkpoint).__name__}.")
    try:
        known = recognise(unwrap(checkpoint, label))
    except UserError:  # spandrel has rules of its own for what a checkpoint may hold
        known = None
    if known is None:
        return from_spandrel(checkpoint, label, dtype)
    try:
        return known.from_published(checkpoint).to(dtype)
    except UserError as error:
        raise UserError(f"{label} looks like x4 {known.architecture} of RGB images, but: {error}") from error


def from_spandrel(checkpoint: Mapping[str, Any], label: str, dtype: torch.dtype) -> Network:
    """The network that spandrel recognises; arguments as for `from_checkpoint`.

    Raises:
        UserError: as for `from_checkpoint`, or spandrel is not installed.
    """
    try:
        import spandrel
    except ImportError as error:
        raise UserError(
            f"{label} is none of our single-image networks; others need spandrel: pip install 'frfsr[sisr]'"
        ) from error
    require_sound(checkpoint, label)
    try:
        descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(dict(checkpoint))
    except spandrel.UnsupportedModelError as error:
        raise UserError(f"{label}: neither frfsr nor spandrel knows a network with these weights.") from error
    except Exception as error:  # spandrel builds a network of sizes that it guesses, which can fail in any way
        reason = one_line(error) or type(error).__name__
        raise UserError(f"spandrel cannot load {label}: {reason[:160]}") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise UserError(f"{label} is a network for {descriptor.architecture.name}, which needs more than an image.")
    if (descriptor.scale, descriptor.input_channels, descriptor.output_channels) != (4, 3, 3):
        raise UserError(
            f"{label} is a x{descriptor.scale} network, {descriptor.input_channels} channels to "
            f"{descriptor.output_channels}: it must be x4, RGB to RGB."
        )
    able = {torch.float16: descriptor.supports_half, torch.bfloat16: descriptor.supports_bfloat16}.get(dtype, True)
    module = descriptor.model.requires_grad_(False).to(dtype if able else torch.float32)
    return Adapted(module, descriptor, descriptor.architecture.name)
