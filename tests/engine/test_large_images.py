"""The config for 256×256 runs, from its data to a grid, at a size for two cores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

CONFIG = Path(__file__).parents[2] / "configs" / "celeba_hq_256.yaml"


def test_smoke_preset_trains_both_nets_at_256(tmp_path: Path, new_run: Callable) -> None:
    shutil.copy(CONFIG, tmp_path)
    run = new_run(tmp_path / CONFIG.name, "smoke", "preset=smoke", "launcher=local")
    status, out, err = run(f"data.shards={tmp_path}/shards", "resources.threads=1")
    assert status == 0, out + err
    trained = [r for r in run.metrics() if r["kind"] == "train"]
    assert [r["images"] for r in trained] == [8, 16, 24]
    assert "energy_loss" not in trained[0] and "energy_loss" in trained[1]  # after the head start
    with Image.open(run.folder.samples / "000000024.png") as grid:
        assert min(grid.size) > 2 * 256
