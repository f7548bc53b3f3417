"""Nets that are told something beside x."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.models import (
    Condition,
    EnergyNetConfig,
    SamplerCopy,
    VAENetConfig,
    build_energy,
    build_vae,
)

SHAPE = (3, 28, 28)
ENERGY = EnergyNetConfig(net="modern", width=8, depth=1)
VAE = VAENetConfig(net="modern", width=8, depth=1, latent_dim=4)
KINDS = {
    "class": (Condition("class", 5), torch.tensor([0, 1, 4, 2])),
    "attributes": (Condition("attributes", 3), torch.tensor([[0.0, 1, 1]] * 3 + [[1, 0, 0]])),
    "image": (Condition("image", 2), torch.linspace(-1, 1, 4 * 2 * 28 * 28).view(4, 2, 28, 28)),
}


@pytest.fixture(params=KINDS)
def given(request: pytest.FixtureRequest) -> tuple[Condition, Tensor]:
    return KINDS[request.param]


def images(seed: int = 0) -> Tensor:
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def another(c: Tensor) -> Tensor:
    """The same conditions, dealt to other samples."""
    return c.roll(1, 0)


def test_energy_depends_on_condition_and_image(given: tuple[Condition, Tensor]) -> None:
    condition, c = given
    energy = build_energy(ENERGY, SHAPE, condition)
    x = images()
    u = energy(x, c)
    assert u.shape == (4,)
    changed = (another(c) != c).flatten(1).any(1) if c.ndim > 1 else another(c) != c
    assert ((energy(x, another(c)) - u).abs()[changed] > 1e-6).all()
    (grad,) = torch.autograd.grad(energy(x.requires_grad_(), c).sum(), x)
    assert grad.abs().sum() > 0


def test_all_weights_of_a_conditional_net_learn(given: tuple[Condition, Tensor]) -> None:
    condition, c = given
    vae = build_vae(VAE, SHAPE, condition)
    out = vae(images(), torch.randn(4, 4), torch.randn(4, 4), c, another(c))
    assert out.recon.shape == out.decoded.shape == (4, *SHAPE)
    (out.recon.square().mean() + out.mu.square().mean() + out.logvar.square().mean()).backward()
    dead = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead
    if condition.kind == "image":  # the last layer sees the image itself
        assert vae.decoder.image[0].weight.grad[:, -condition.size :].abs().sum() > 0


def test_encoder_and_decoder_depend_on_the_condition(given: tuple[Condition, Tensor]) -> None:
    condition, c = given
    vae, x, z = build_vae(VAE, SHAPE, condition), images(), torch.randn(4, 4)
    assert not torch.allclose(vae.encode(x, c)[0], vae.encode(x, another(c))[0])
    assert not torch.allclose(vae.decode(z, c), vae.decode(z, another(c)))
    out = vae(x, z, z, c, another(c))
    mu, logvar = vae.encode(x, c)
    torch.testing.assert_close(out.recon, vae.decode(mu + (logvar / 2).exp() * z, c))
    assert out.decoded is not None
    torch.testing.assert_close(out.decoded, vae.decode(z, another(c)))


@pytest.mark.parametrize("size", [28, 32, 64])
def test_any_number_of_channels_on_both_sides(size: int) -> None:
    for channels, given in ((1, 3), (3, 1), (3, 4)):
        shape, condition = (channels, size, size), Condition("image", given)
        vae = build_vae(VAE, shape, condition)
        c = torch.zeros(2, given, size, size)
        assert vae.decode(torch.zeros(2, 4), c).shape == (2, *shape)
        assert build_energy(ENERGY, shape, condition)(torch.zeros(2, *shape), c).shape == (2,)


def test_the_copy_for_chains_takes_conditions_too(given: tuple[Condition, Tensor]) -> None:
    condition, c = given
    energy, vae = build_energy(ENERGY, SHAPE, condition), build_vae(VAE, SHAPE, condition)
    x, z = images(), torch.randn(4, 4)
    with torch.no_grad():
        for dtype, tolerance in ((torch.float32, 0.0), (torch.bfloat16, 0.05)):
            close = {"rtol": tolerance, "atol": tolerance}
            copy, decoder = SamplerCopy(energy, dtype), SamplerCopy(vae.decoder, dtype)
            torch.testing.assert_close(copy(x, c), energy(x, c), **close)
            torch.testing.assert_close(decoder(z, c), vae.decode(z, c), **close)
            for module, fast in ((energy, copy), (vae.decoder, decoder)):
                for parameter in module.parameters():
                    parameter.add_(0.01 * torch.randn_like(parameter))
                fast.refresh(module.state_dict())
            torch.testing.assert_close(copy(x, c), energy(x, c), **close)
            torch.testing.assert_close(decoder(z, c), vae.decode(z, c), **close)


def test_label_projection_is_the_formula() -> None:
    """U(x, c) − U(x, c') = ⟨v(c) − v(c'), mean φ(x)⟩."""
    energy = build_energy(ENERGY, SHAPE, Condition("class", 5))
    x = images()
    phi = energy.features(energy.blur(x)).mean((2, 3))
    first, second = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 2, 4, 3])
    v = energy.label.weight[first] - energy.label.weight[second]
    torch.testing.assert_close(
        energy(x, first) - energy(x, second), (v * phi).sum(1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("net", ["mlp", "reference"])
def test_nets_without_a_conditional_form_say_so(net: str) -> None:
    condition = Condition("class", 3)
    with pytest.raises(ConfigError, match=r"energy\.net=.* takes no condition: set energy\.net=m"):
        build_energy(EnergyNetConfig(net=net), SHAPE, condition)
    with pytest.raises(ConfigError, match=r"vae\.net=.* takes no condition"):
        build_vae(VAENetConfig(net=net), SHAPE, condition)


@pytest.mark.parametrize(
    ("condition", "c", "words"),
    [
        (Condition("class", 3), torch.tensor([0, 3]), "0 to 2"),
        (Condition("class", 3), torch.tensor([-1, 0]), "0 to 2"),
        (Condition("class", 3), torch.tensor([0.0, 1.0]), "whole numbers"),
        (Condition("class", 3), torch.tensor([0]), r"\[2\] for 2 samples"),
        (Condition("attributes", 3), torch.zeros(2, 4), r"\[2, 3\]"),
        (Condition("image", 1), torch.zeros(2, 1, 32, 32), r"\[2, 1, 28, 28\]"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(
    condition: Condition, c: Tensor, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        condition.checked(c, 2, SHAPE)
