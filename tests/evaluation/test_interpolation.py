"""Paths between codes, and the task over them."""

from __future__ import annotations

import json
import math

import pytest
import torch

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation.paths import MODES, path, spherical, strides
from vmcmc_dist.evaluation.tasks import interpolation as task
from vmcmc_dist.models import Condition


def two(d: int = 64, n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=rng), torch.randn(n, d, generator=rng)


@pytest.mark.parametrize("mode", MODES)
def test_a_path_begins_and_ends_at_its_ends(mode) -> None:
    z0, z1 = two()
    z = path(z0, z1, 7, mode)
    assert z.shape == (7, 5, 64)
    torch.testing.assert_close(z[0], z0)
    torch.testing.assert_close(z[-1], z1)
    torch.testing.assert_close(z, path(z1, z0, 7, mode).flip(0))


def test_linear_is_even_and_spherical_turns_evenly_on_the_sphere() -> None:
    z0, z1 = (torch.nn.functional.normalize(z, dim=1) * 8 for z in two())
    even = strides(path(z0, z1, 9, "linear"))
    torch.testing.assert_close(even, even[:1].expand_as(even))
    arc = path(z0, z1, 9, "spherical")
    torch.testing.assert_close(arc.norm(dim=2), torch.full((9, 5), 8.0))
    turn = torch.cosine_similarity(arc[1:], arc[:-1], dim=2).acos()
    torch.testing.assert_close(turn, turn[:1].expand_as(turn), atol=1e-3, rtol=0)


def test_codes_in_one_line_have_a_path_too() -> None:
    z, _ = two()
    torch.testing.assert_close(spherical(z, z, 0.3), z)
    torch.testing.assert_close(spherical(z, 2 * z, 0.5), 1.5 * z)
    assert spherical(z, -z, 0.5).isfinite().all()


def test_strides_are_distances() -> None:
    x = torch.zeros(3, 2, 1, 4, 4)
    x[1:, 0] = 0.5
    assert strides(x).tolist() == [[2.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(("mode", "points"), [("bent", 5), ("linear", 1)])
def test_bad_paths_are_refused(mode, points) -> None:
    with pytest.raises(ConfigError, match="no path 'bent'|two ends"):
        path(*two(), points, mode)


def test_the_task(small_model, job_of) -> None:
    job = job_of(small_model(), "interpolation", n=4, points=5, shown=3)
    result = task.run(job)
    assert json.loads(json.dumps(result.figures)) == result.figures
    for mode in MODES:
        for kind in ("decoded", "refined"):
            energies = result.figures[f"energy_{kind}_{mode}"]
            assert len(energies) == 5 and all(map(math.isfinite, energies))
            assert result.figures[f"stride_{kind}_{mode}"] > 0
            assert result.figures[f"jump_{kind}_{mode}"] >= 1
    z0, z1 = task.ends(job.model, 4, 0)
    first = job.model.energy(job.model.decode(z0)).mean().item()
    assert result.figures["energy_decoded_linear"][0] == pytest.approx(first, rel=1e-5)
    assert [p.name for p in result.pictures] == ["linear.png", "spherical.png"]
    assert all(p.exists() for p in result.pictures)


def test_the_noise_is_the_same_along_a_path(small_model, job_of) -> None:
    """A path that stays at one code stays at one image, refined too; other pairs differ."""
    model = small_model("langevin.temperature=1")
    job = job_of(model, "interpolation", n=4, points=4, batch_size=2)
    z, _ = task.ends(model, 1, 0)
    images = task.travel(job, z.expand(4, 4, -1), None, "linear")
    refined = images["refined"]
    assert torch.equal(refined[0], refined[3]) and not torch.equal(refined[0], images["decoded"][0])
    assert not torch.equal(refined[0, 0], refined[0, 1])
    assert not torch.equal(refined[0, 0], refined[0, 2])


def test_conditional_models_keep_one_condition_along_a_path(small_model, job_of) -> None:
    model = small_model("condition.kind=class", condition=Condition("class", 4))
    c = task.conditions(model, 150, 0)
    assert c is not None and len(c) == 150 and torch.equal(c[:30], c[120:])  # 120 are held out
    result = task.run(job_of(model, "interpolation", n=3, points=3))
    assert math.isfinite(result.figures["stride_refined_spherical"])


def test_vectors_have_no_pictures(small_model) -> None:
    model = small_model()
    assert task.fits(model) is None
    model.shape = (2,)
    assert "vectors" in task.fits(model)
