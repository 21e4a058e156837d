"""Modules that are saved as config.json and model.safetensors, in a folder or on the Hub.

They have the names of huggingface_hub's PyTorchModelHubMixin, whose import alone takes as long as enlarging a photo.
"""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Self

from safetensors.torch import save_file
from torch import Tensor, nn

from frfsr.checkpoints import CONFIG, FORMAT, WEIGHTS, HubOptions, find_model, load_module, read_config
from frfsr.errors import UserError
from frfsr.publications import Needs
from frfsr.settings import from_mapping

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD = "README.md"


class StoredModule(nn.Module):
    """A module that is saved as config.json and model.safetensors, in a folder or on the Hub.

    Attributes:
        architecture: its name in config.json and in `frfsr.architectures`.
        config_class: the dataclass of its sizes, made by `frfsr.settings.settings`.
        config: an instance of it.
    """

    architecture: ClassVar[str]
    config_class: ClassVar[type]
    config: Any

    @classmethod
    def of(cls, config: Any) -> Self:
        """The module of these sizes, with initial weights."""
        return cls(config)

    @classmethod
    def needs(cls) -> Needs:
        """What it super-resolves with; a part of a network makes no image."""
        return Needs.PART

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **hub: Any) -> Self:
        """Load weights that come with the package ("frfsr-tiny"), from a folder, or from the Hub by id.

        Args:
            name_or_path: see `frfsr.checkpoints.find_model`; nothing is unpickled.
            **hub: fields of `HubOptions`: revision, token, cache_dir, subfolder, local_files_only.

        Returns:
            The module, in evaluation mode, on the CPU.

        Raises:
            UserError: they are not found, do not fit each other, or are of another architecture.
        """
        files = find_model(name_or_path, HubOptions(**hub))
        architecture, values = read_config(files)
        if architecture != cls.architecture:
            raise UserError(
                f"{files.label} holds the architecture {architecture!r}, not {cls.architecture!r}: load it by "
                "frfsr.load, or give another folder."
            )
        return cls.from_files(files, values)

    @classmethod
    def from_files(cls, files: Any, values: dict[str, Any]) -> Self:
        """Build the module that config.json describes and load its weights, in evaluation mode; see `load_module`.

        Raises:
            UserError: config.json or the weights are not those of such a module.
        """
        try:
            config = from_mapping(cls.config_class, values)
        except UserError as error:
            raise UserError(f"{CONFIG} of {files.label}: {error}") from error
        return load_module(lambda: cls.of(config), files).eval()

    def save_pretrained(self, folder: str | Path, *, model_card_kwargs: dict[str, Any] | None = None) -> None:
        """Write config.json, model.safetensors and, if there is none yet, the model card.

        Args:
            folder: made if needed.
            model_card_kwargs: see `generate_model_card`.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        write_tensors(folder / WEIGHTS, state, {"format": "pt"})
        config = {"architecture": self.architecture, "format": FORMAT, **asdict(self.config)}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        if not (folder / CARD).exists():
            self.generate_model_card(**model_card_kwargs or {}).save(folder / CARD)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        commit_message: str = "Weights",
        model_card_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Put what `save_pretrained` writes on the Hugging Face Hub, in one commit.

        Args:
            repo_id: OWNER/NAME, made if there is none.
            private: whether a repository that is made now is private; by default as its owner's settings are.
            token: with the right to write; by default the one of `hf auth login`.
            branch: main by default.
            commit_message: of the commit.
            model_card_kwargs: see `generate_model_card`.
            **options: further ones of `huggingface_hub.HfApi.upload_folder`, such as create_pr.

        Returns:
            The commit's address.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as temporary:
            folder = Path(temporary, repository)
            self.save_pretrained(folder, model_card_kwargs=model_card_kwargs)
            return api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                revision=branch,
                commit_message=commit_message,
                **options,
            )

    def generate_model_card(self, **facts: Any) -> "ModelCard":
        """Write the card that is saved beside the weights.

        Args:
            **facts: name and origin, see `frfsr.cards.model_card`.

        Returns:
            The card.
        """
        from frfsr.cards import model_card  # with huggingface_hub

        parameters = sum(parameter.numel() for parameter in self.parameters())
        return model_card(self.architecture, parameters, self.needs(), **facts)


def write_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file with the mode that it had, or that any new file gets: safetensors 0.8 makes it private.

    Args:
        file: its path.
        tensors: contiguous, on the CPU or not.
        metadata: for its header.
    """
    file.touch()
    mode = file.stat().st_mode & 0o777
    save_file(tensors, file, metadata)
    file.chmod(mode)
