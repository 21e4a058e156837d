"""FRFSR as a whole: sizes, batches, precision, compilation, what is computed once, and storing it."""

import http.server
import json
import re
import threading

import pytest
import torch
from torch import Tensor

from frfsr import FRFSR, FRFSRConfig
from frfsr.errors import UserError

SMALL = dict(
    encoder_channels=(4, 4, 8),
    texture_channels=(8, 8, 8),
    sife_features=8,
    sife_blocks=1,
    sife_growth=4,
    groups=2,
    channels=(8, 8, 8),
    dynamic_blocks=(1, 1, 1),
    blocks=(1, 1, 1),
)


def random_model(config: FRFSRConfig) -> FRFSR:
    """All weights random, so that every part has a say in the output."""
    model = FRFSR(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.07, generator=generator)
    return model


def photos(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["paper", "published", "tiny", "reuse"])
def model(request) -> FRFSR:
    """Every preset at a small size; reuse: the paper's with the second network."""
    if request.param == "reuse":
        return random_model(FRFSRConfig.paper(**SMALL, reuse=True))
    return random_model(getattr(FRFSRConfig, request.param)(**SMALL))


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "reference_size"),
    [((1, 1), (1, 1)), ((7, 5), (3, 50)), ((7, 5), (41, 7)), ((16, 21), (9, 9)), ((9, 6), (64, 80))],
)
def test_any_sizes(model, size, reference_size) -> None:
    lr, reference = photos(1, 3, *size), photos(1, 3, *reference_size, seed=1)
    result = model(lr, reference)
    assert result.image.shape == (1, 3, 4 * size[0], 4 * size[1])
    assert result.features.shape[-2:] == result.image.shape[-2:]
    assert result.image.isfinite().all()
    assert not torch.equal(result.image, model(lr, 1 - reference).image)


@torch.no_grad()
def test_a_batch_is_its_images_one_by_one(model) -> None:
    lr, reference = photos(3, 3, 9, 11), photos(3, 3, 37, 42, seed=1)
    together = model(lr, reference).image
    singles = torch.cat([model(lr[b : b + 1], reference[b : b + 1]).image for b in range(3)])
    torch.testing.assert_close(together, singles, rtol=0, atol=2e-5)


@torch.no_grad()
def test_an_encoded_reference_serves_many_images(model) -> None:
    lr, reference = photos(2, 3, 9, 11), photos(1, 3, 37, 42, seed=1)
    encoded = model.encode_reference(reference)
    for image in lr.split(1):
        assert torch.equal(model(image, encoded).image, model(image, reference).image)


@torch.no_grad()
def test_upsampled_replaces_the_models_own(model) -> None:
    lr, reference = photos(1, 3, 8, 8), photos(1, 3, 32, 32, seed=1)
    own = model.prepare(lr, None, None)[1]
    assert torch.equal(model(lr, reference, upsampled=own).image, model(lr, reference).image)
    assert not torch.equal(
        model(lr, reference, upsampled=own.flip(-1)).correspondence.flow, model(lr, reference)[2].flow
    )


@torch.no_grad()
def test_bfloat16_is_close_to_float32(small_model) -> None:
    """Same correspondence for both: an argmax may turn the smallest difference into another patch."""
    lr, reference = photos(1, 3, 16, 20), photos(1, 3, 60, 80, seed=1)
    result = small_model(lr, reference)
    half = FRFSR(small_model.config).eval()
    half.load_state_dict(small_model.state_dict())
    half = half.bfloat16()
    low = half(lr.bfloat16(), reference.bfloat16())
    assert low.image.dtype == torch.bfloat16
    same = (low.correspondence.index == result.correspondence.index).float().mean()
    assert same > 0.9
    assert (low.image.float() - result.image).abs().mean() < 0.02


@pytest.mark.parametrize("preset", ["paper", "published", "tiny"])
def test_network_compiles_without_graph_breaks(preset) -> None:
    model = random_model(getattr(FRFSRConfig, preset)(**SMALL))
    inputs = photos(1, 3, 16, 18), photos(1, 3, 64, 72, seed=1)
    with torch.inference_mode():
        expected = model(*inputs)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(*inputs)
    assert torch.equal(compiled.correspondence.index, expected.correspondence.index)
    torch.testing.assert_close(compiled.features, expected.features, rtol=0, atol=1e-5)
    torch.testing.assert_close(compiled.image, expected.image, rtol=0, atol=1e-5)


def test_paper_preset_has_the_papers_size() -> None:
    with torch.device("meta"):
        model = FRFSR(FRFSRConfig.paper())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count["aggregation"] == pytest.approx(13.5e6, rel=0.005)
    assert count["sife"] == pytest.approx(16.66e6, rel=0.005)  # ESRGAN's trunk


def test_textures_are_found_once_for_both_networks(monkeypatch) -> None:
    model = random_model(FRFSRConfig.published(**SMALL, reuse=True))
    calls = []
    parts = ("encoder", "reference_encoder", "pyramid", "sife", "aggregation.first", "aggregation.second")
    for name in parts:
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    monkeypatch.setattr("frfsr.atlas.correspond", count_calls(calls, "correspond"))
    model(photos(1, 3, 8, 8), photos(1, 3, 32, 32, seed=1))
    assert sorted(calls) == sorted([*parts, "correspond"])


def count_calls(calls: list[str], name: str):
    from frfsr.matching import correspond

    def counted(*arguments):
        calls.append(name)
        return correspond(*arguments)

    return counted


def test_reused_features_matter_and_network_1_gets_no_gradient() -> None:
    model = random_model(FRFSRConfig.paper(**SMALL, reuse=True))
    lr, reference = photos(1, 3, 8, 8), photos(1, 3, 32, 32, seed=1)
    result = model(lr, reference)
    result.image.sum().backward()
    for part in (model.aggregation.first, model.encoder):
        assert all(parameter.grad is None for parameter in part.parameters())
    assert all(
        parameter.grad.abs().sum() > 0
        for name, parameter in model.aggregation.second.named_parameters()
        if name.startswith("taam_down_large.conv")
    )
    with torch.no_grad():
        for parameter in model.aggregation.first.up_medium.parameters():  # changes F_rec alone
            parameter.mul_(1.5)
        assert not torch.equal(model(lr, reference).image, result.image)


@torch.no_grad()
def test_save_and_load(model, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors"} <= {file.name for file in tmp_path.iterdir()}
    loaded = FRFSR.from_pretrained(tmp_path)
    assert loaded.config == model.config
    lr, reference = photos(1, 3, 6, 7), photos(1, 3, 20, 30, seed=1)
    assert torch.equal(loaded(lr, reference).image, model(lr, reference).image)


@pytest.mark.parametrize("damage", ["other size", "truncated", "no config", "text config", "no weights"])
def test_wrong_weights_are_a_user_error(small_model, tmp_path, damage) -> None:
    small_model.save_pretrained(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    if damage == "other size":
        FRFSR(FRFSRConfig.tiny(**SMALL)).save_pretrained(tmp_path / "other")
        weights.write_bytes((tmp_path / "other" / weights.name).read_bytes())
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    if damage == "no config":
        config.unlink()
    if damage == "text config":
        config.write_text("sharp, please")
    if damage == "no weights":
        weights.unlink()
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        FRFSR.from_pretrained(tmp_path)


def test_an_unknown_key_of_the_configuration_is_named(small_model, tmp_path) -> None:
    small_model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"filter_norms": False}))
    with pytest.raises(UserError, match=r"unknown key 'filter_norms' .* did you mean 'filter_norm'") as caught:
        FRFSR.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as an upload talks to; keeps the commit."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "/commit/" in self.path:
            self.server.commit = [json.loads(line) for line in body.splitlines()]
            self.reply({"commitUrl": f"{self.server.url}/someone/model/commit/0", "commitOid": "0" * 40})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self.reply(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        elif "/validate-yaml" in self.path:
            self.reply({"errors": [], "warnings": []})
        else:
            self.reply({"url": f"{self.server.url}/someone/model", "id": "someone/model"})

    def do_GET(self) -> None:
        self.reply({"id": "someone/model", "siblings": []})

    def reply(self, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        """Quiet."""


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url, server.commit = f"http://127.0.0.1:{server.server_port}", []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_push_to_hub(small_model, hub, monkeypatch) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr("huggingface_hub.HfApi", lambda token=None: HfApi(endpoint=hub.url, token=token))
    small_model.push_to_hub("someone/model", token="hf_" + "x" * 30)
    uploaded = {line["value"]["path"]: line["value"] for line in hub.commit if line["key"] == "file"}
    assert {"config.json", "model.safetensors", "README.md"} <= uploaded.keys()


@pytest.mark.parametrize("preset", ["paper", "published"])  # with filter normalisation and without
def test_the_reference_kernels_give_the_same_gradients(preset, monkeypatch):
    model = random_model(getattr(FRFSRConfig, preset)(**SMALL)).double()
    lr, reference = photos(1, 3, 7, 9).double(), photos(1, 3, 40, 36, seed=1).double()

    def gradients() -> dict[str, Tensor | None]:
        model.zero_grad()
        model(lr, reference).image.square().sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    ours = gradients()
    monkeypatch.setenv("FRFSR_KERNELS", "reference")
    plain = gradients()
    assert ours.keys() == plain.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-6, atol=1e-9, msg=name)
