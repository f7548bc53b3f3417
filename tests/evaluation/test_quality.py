"""MSE, PSNR and SSIM against their definitions, written out pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vmcmc_dist.data.masks import masks
from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.quality import mse, psnr, ssim, ssim_map


def pair(shape=(3, 2, 17, 14), noise=0.3):
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(shape, generator=rng) * 2 - 1
    return x, (x + noise * torch.randn(shape, generator=rng)).clamp(-1, 1)


def slow_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Wang et al. 2004 in loops: every window's weighted moments about their own means."""
    height, width = x.shape
    axis = np.arange(11) - 5
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = 0.02**2, 0.06**2
    out = np.zeros((height - 10, width - 10))
    for i in range(height - 10):
        for j in range(width - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a = (window * (a - mean_a) ** 2).sum()
            var_b = (window * (b - mean_b) ** 2).sum()
            cov = (window * (a - mean_a) * (b - mean_b)).sum()
            out[i, j] = ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / (
                (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
            )
    return out


def test_ssim_is_the_definition() -> None:
    x, y = pair()
    local = ssim_map(x, y)
    assert local.shape == (3, 2, 7, 4)
    for n in range(3):
        for c in range(2):
            expected = slow_ssim(x[n, c].double().numpy(), y[n, c].double().numpy())
            np.testing.assert_allclose(local[n, c].numpy(), expected, atol=1e-12)
    torch.testing.assert_close(ssim(x, y), local.mean((1, 2, 3)))


def test_published_values() -> None:
    """Constants: of scikit-image 0.26 (gaussian_weights, sigma 1.5, population covariance)."""
    grid = torch.arange(20.0)
    x = torch.sin(grid[:, None] / 3) * torch.cos(grid[None, :] / 4)
    y = 0.8 * x + 0.1 * torch.cos(grid[:, None] * grid[None, :] / 9)
    assert float(ssim(x[None, None], y[None, None])) == pytest.approx(SKIMAGE_SSIM, abs=1e-9)
    assert float(psnr(x[None, None], y[None, None])) == pytest.approx(SKIMAGE_PSNR, abs=1e-9)


SKIMAGE_SSIM, SKIMAGE_PSNR = 0.8705569684347841, 24.654511578424675


def test_per_image_not_over_the_batch() -> None:
    x, y = pair()
    for measure in (mse, psnr, ssim):
        single = torch.cat([measure(x[k : k + 1], y[k : k + 1]) for k in range(3)])
        torch.testing.assert_close(measure(x, y), single)


def test_psnr_is_of_a_range_of_two() -> None:
    x = torch.zeros(2, 1, 12, 12)
    y = torch.stack([torch.full((1, 12, 12), 0.02), torch.full((1, 12, 12), 0.2)])
    torch.testing.assert_close(mse(x, y), torch.tensor([0.0004, 0.04], dtype=torch.float64))
    assert psnr(x, y).tolist() == pytest.approx([40.0, 20.0], abs=1e-5)


def test_equal_images_are_finite() -> None:
    x, _ = pair()
    assert psnr(x, x).tolist() == pytest.approx([10 * math.log10(4 * 12 * 255**2 / 4)] * 3)
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 3)


def test_only_the_asked_pixels_count() -> None:
    """What happens elsewhere changes nothing; here it does."""
    x, y = pair((4, 3, 24, 24))
    hidden = masks("centre", x.shape[1:], 4)
    elsewhere, here = y * hidden + x * (1 - hidden) * -1, y * (1 - hidden)
    torch.testing.assert_close(mse(x, elsewhere, hidden), mse(x, y, hidden))
    torch.testing.assert_close(psnr(x, elsewhere, hidden), psnr(x, y, hidden))
    assert not torch.allclose(mse(x, here, hidden), mse(x, y, hidden))
    chosen = (x - y)[:, :, 6:18, 6:18].square().mean((1, 2, 3))
    torch.testing.assert_close(mse(x, y, hidden), chosen.double())


def test_masked_ssim_averages_the_windows_centred_there() -> None:
    x, y = pair((2, 1, 24, 20))
    hidden = masks("random", x.shape[1:], 2, seed=4)
    local = ssim_map(x, y)
    for n in range(2):
        places = hidden[n, 0, 5:-5, 5:-5].bool()
        assert float(ssim(x, y, hidden)[n]) == pytest.approx(float(local[n, 0][places].mean()))
    whole = torch.ones(1, 1, 24, 20)
    torch.testing.assert_close(ssim(x, y, whole), ssim(x, y))


def test_a_mask_in_the_border_has_no_ssim() -> None:
    x, y = pair((1, 1, 24, 24))
    corner = torch.zeros(1, 1, 24, 24)
    corner[..., :5, :5] = 1
    assert ssim(x, y, corner).isnan().all() and psnr(x, y, corner).isfinite().all()


def test_bad_input_is_said() -> None:
    x, y = pair()
    with pytest.raises(DataError, match="one shape"):
        mse(x, y[:, :1])
    with pytest.raises(DataError, match=r"\[B, C, H, W\]"):
        psnr(x[0], y[0])
    with pytest.raises(DataError, match="11×11"):
        ssim(x[..., :10], y[..., :10])
    with pytest.raises(DataError, match="counts no pixel"):
        psnr(x, y, torch.zeros(3, 1, 17, 14))
