"""What a stage minimises: the reconstruction loss alone, or all losses against a critic."""

import torch
from accelerate import Accelerator
from einops import einsum
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from frfsr.errors import UserError
from frfsr.network import Network
from frfsr.recipes.config import Reconstructs, TrainingConfig
from frfsr.recipes.critic import adversarial_loss, critic_loss, drawn_critic
from frfsr.recipes.guard import Guard
from frfsr.recipes.losses import PerceptualLoss, reconstruction_loss
from frfsr.recipes.pretrained import read

Terms = dict[str, Tensor]


class Reconstruction:
    """Stages sife and rec: eq. 26, or what PSNR counts.

    Args:
        kind: of `reconstruction_loss`.

    Attributes:
        networks: what is trained beside the model.
        optimizers: of these networks.
        guards: of these networks.
        sources: SHA-256 of the pretrained weights by the network they are of.
    """

    def __init__(self, kind: Reconstructs = "l1"):
        self.kind: Reconstructs = kind
        self.networks: tuple[nn.Module, ...] = ()
        self.optimizers: tuple[Optimizer, ...] = ()
        self.guards: tuple[Guard, ...] = ()
        self.sources: dict[str, str] = {}

    def judge(self, image: Tensor, batch: dict[str, Tensor]) -> Terms:
        """Train what judges the image, if anything does.

        Args:
            image: I_SR (B, 3, H, W).
            batch: of `TrainingSamples`.

        Returns:
            Scalars for the log.
        """
        return {}

    def __call__(self, image: Tensor, truth: Tensor) -> tuple[Tensor, Terms]:
        """Compute the loss.

        Args:
            image: I_SR (B, 3, H, W).
            truth: I_HR (B, 3, H, W).

        Returns:
            The loss, and its terms for the log.
        """
        loss = reconstruction_loss(image, truth, self.kind)
        return loss, {"l1" if self.kind == "l1" else "loss": loss}


class AllLosses(Reconstruction):
    """Stage all: eq. 30, and the critic of eq. 28-29, which takes a step on every batch before the network does.

    The critic and its optimizer become part of the accelerator's checkpoints.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        pretrained = read(config.perceptual_weights, "perceptual_weights", config.perceptual)
        self.sources = {config.perceptual: pretrained.sha256}
        try:
            self.perceptual = PerceptualLoss(pretrained.state, config.perceptual).to(accelerator.device)
        except RuntimeError as error:
            raise UserError(
                f"perceptual_weights: {config.perceptual_weights} has not all layers of {config.perceptual} up to "
                "conv5_1; give torchvision, or a file of that network under torchvision's names."
            ) from error
        critic = drawn_critic(config.critic, config.seed)
        optimizer = torch.optim.Adam(critic.parameters(), lr=config.critic_lr, betas=config.betas)
        self.critic, self.optimizer = accelerator.prepare(critic, optimizer)
        self.optimizer.scaler = None  # the critic computes in 32 bits; fp16's loss scale is the network's alone
        self.guard = Guard(accelerator)
        self.networks, self.optimizers, self.guards = (self.critic,), (self.optimizer,), (self.guard,)

    def judge(self, image: Tensor, batch: dict[str, Tensor]) -> Terms:
        """Let the critic take its step; see `Reconstruction.judge`."""
        loss = critic_loss(self.critic, batch["hr"], image, batch["mix"], self.config.gradient_penalty)
        (self.guard.watch(loss) / self.config.accumulate).backward()
        if self.accelerator.sync_gradients:
            gradients = [parameter.grad for parameter in self.critic.parameters()]
            self.guard.step(self.optimizer, get_total_norm(gradients))
        return {"critic": loss}

    def __call__(self, image: Tensor, truth: Tensor) -> tuple[Tensor, Terms]:
        """Compute the weighted sum of all losses; see `Reconstruction.__call__`."""
        critic = self.accelerator.unwrap_model(self.critic)  # its weights get no gradient here: nothing to synchronise
        critic.requires_grad_(False)
        terms = {
            "l1": reconstruction_loss(image, truth),
            "perceptual": self.perceptual(image, truth),
            "adversarial": adversarial_loss(critic, image),
        }
        critic.requires_grad_(True)
        weighted = [weight * term for weight, term in zip(self.config.loss_weights, terms.values(), strict=True)]
        return torch.stack(weighted).sum(), terms


def base_image(network: Network, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The base images that a batch of `TrainingSamples` asks for, {"base": (B, 3, 4h, 4w)}; {}: the network's own.

    So the network learns to refine what any other one gives: a bicubic image, its own, and one that is nearer to the
    truth, as that of a stronger single-image network is.
    """
    if "base_mix" not in batch:
        return {}
    own = network(batch["lr"], None, batch["upsampled"]).image
    choices = torch.stack([own, batch["upsampled"], batch["hr"]])
    return {"base": einsum(batch["base_mix"], choices, "b kind, kind b c h w -> b c h w")}
