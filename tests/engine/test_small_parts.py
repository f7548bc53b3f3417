"""Run folder, moving average, learning rate, meter, speed figures: each against its formula."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vmcmc_dist.config import Config
from vmcmc_dist.engine.config import OptimizerConfig
from vmcmc_dist.engine.ema import EMA
from vmcmc_dist.engine.meter import Meter
from vmcmc_dist.engine.progress import TrainingProgress, duration, figures, time_share
from vmcmc_dist.engine.run_folder import RunFolder, complete_lines, describe_environment
from vmcmc_dist.engine.schedule import learning_rate
from vmcmc_dist.errors import ResourceError

# -- run folder ------------------------------------------------------------------------------------


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"images": 1}\n{"images": 2}\n{"ima')
    assert complete_lines(path) == [{"images": 1}, {"images": 2}]
    path.write_text("")
    assert complete_lines(path) == []


def test_truncation_drops_what_will_be_made_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for images in (10, 20, 20, 30):
        folder.append({"images": images, "gap": 0.1 + images})
    with folder.metrics.open("a") as file:
        file.write('{"images": 3')
    folder.truncate_metrics(20)
    folder.append({"images": 25})
    assert [line["images"] for line in complete_lines(folder.metrics)] == [10, 20, 20, 25]
    assert complete_lines(folder.metrics)[0]["gap"] == 10.1
    RunFolder(tmp_path / "new").truncate_metrics(0)


def test_values_that_are_not_finite_never_reach_the_metrics(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError):
        folder.append({"images": 1, "gap": math.nan})
    assert not folder.metrics.exists() or folder.metrics.read_text() == ""


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written .* set out="):
        RunFolder(tmp_path / "file" / "run").create()


def test_a_metrics_file_on_a_full_disk_is_said() -> None:
    folder = RunFolder("/dev")
    folder.metrics = Path("/dev/full")
    with pytest.raises(ResourceError, match="No space left.*run the same command again"):
        folder.append({"images": 1})


def test_two_processes_cannot_train_one_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create()
    code = (
        "import sys\nfrom vmcmc_dist.engine.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).locked(): pass\n"
    )
    with folder.locked():
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
        )
        assert other.returncode and "another process is training" in other.stderr
    with folder.locked():
        pass


def test_environment_says_versions_hardware_and_command(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_environment(describe_environment())
    found = json.loads(folder.environment.read_text())
    assert found["packages"]["torch"] == torch.__version__
    assert found["cpus"] >= 1 and found["cpu"] and found["command"] and "commit" in found


# -- moving average --------------------------------------------------------------------------------


def linear(value: float) -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(value)
    return net


def test_after_a_half_life_half_of_the_old_average_is_left() -> None:
    ema = EMA(linear(0.0), halflife=1000)
    new = linear(1.0).state_dict()
    for _ in range(40):
        ema.update(new, batch_size=25, images=10**9)
    for name, value in ema.module.state_dict().items():
        expected = 1.0 if "num_batches" in name else 0.5
        torch.testing.assert_close(value.double(), torch.full_like(value.double(), expected))


def test_halving_the_batch_does_not_change_the_average() -> None:
    one, two = EMA(linear(0.0), 700), EMA(linear(0.0), 700)
    new = linear(1.0).state_dict()
    one.update(new, 64, 10**9)
    two.update(new, 32, 10**9)
    two.update(new, 32, 10**9)
    for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_half_life_grows_with_the_images_seen() -> None:
    """Early on it is ramp × images: EDM's rule."""
    ema = EMA(linear(0.0), halflife=10**6, ramp=0.1)
    ema.update(linear(1.0).state_dict(), batch_size=50, images=1000)
    expected = 1 - 0.5 ** (50 / 100)
    torch.testing.assert_close(ema.module[0].weight, torch.full((2, 2), expected))


def test_half_life_zero_is_the_weights_themselves() -> None:
    ema = EMA(linear(0.3), halflife=0)
    net = linear(0.1)
    ema.update(net.state_dict(), 8, 8)
    for name, value in net.state_dict().items():
        assert torch.equal(ema.module.state_dict()[name], value), name


def test_the_average_is_frozen_and_apart_from_the_net() -> None:
    net = linear(1.0)
    ema = EMA(net, 100)
    with torch.no_grad():
        net[0].weight.fill_(5)
    assert float(ema.module[0].weight[0, 0]) == 1 and not ema.module.training
    assert not any(p.requires_grad for p in ema.module.parameters())


# -- learning rate ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "images", "expected"),
    [
        ({}, 10**8, 1.0),
        ({"schedule": "exponential", "decay": 0.5, "decay_images": 100}, 300, 0.125),
        ({"schedule": "cosine", "decay": 0.1}, 0, 1.0),
        ({"schedule": "cosine", "decay": 0.1}, 500, 0.55),
        ({"schedule": "cosine", "decay": 0.1}, 1000, 0.1),
        ({"schedule": "cosine", "decay": 0.1}, 5000, 0.1),
        ({"warmup_images": 100}, 49, 0.5),
        ({"warmup_images": 100}, 99, 1.0),
        ({"warmup_images": 100}, 10**6, 1.0),
        (
            {"warmup_images": 100, "schedule": "exponential", "decay": 0.5, "decay_images": 49},
            49,
            0.25,
        ),
    ],
)
def test_learning_rate(settings: dict, images: int, expected: float) -> None:
    assert learning_rate(OptimizerConfig(lr=1.0, **settings), images, 1000) == pytest.approx(
        expected
    )


# -- meter -----------------------------------------------------------------------------------------


def test_means_over_iterations_then_empty() -> None:
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add({"gap": torch.tensor(value), "kl": torch.tensor(10 * value)})
    assert meter.means() == {"gap": 3.0, "kl": 30.0}
    assert not meter and meter.means() == {}


def test_a_figure_that_came_later_is_divided_by_its_own_count() -> None:
    meter = Meter()
    meter.add({"kl": torch.tensor(1.0)})
    meter.add({"kl": torch.tensor(3.0), "gap": torch.tensor(5.0)})
    assert meter.means() == {"gap": 5.0, "kl": 2.0}


def test_an_open_interval_survives_a_checkpoint_to_the_last_bit() -> None:
    values = [torch.tensor(v) for v in (0.1, 0.2, 0.7, 1e-9)]
    whole, first, second = Meter(), Meter(), Meter()
    for i, value in enumerate(values):
        whole.add({"gap": value})
        if i < 2:
            first.add({"gap": value})
    second.load(json.loads(json.dumps(first.state())), rank=0, world_size=1)
    for value in values[2:]:
        second.add({"gap": value})
    assert whole.means() == second.means()


def test_an_empty_interval_survives_too() -> None:
    meter = Meter()
    meter.load(json.loads(json.dumps(Meter().state())), rank=0, world_size=1)
    meter.add({"gap": torch.tensor(2.0)})
    assert meter.means() == {"gap": 2.0}


def test_rows_of_two_workers_on_one_keep_the_mean() -> None:
    meter = Meter()
    meter.load({"names": ["gap"], "rows": [[2.0], [4.0]], "counts": [2]}, rank=0, world_size=1)
    assert meter.means() == {"gap": 1.5}
    meter.load({"names": ["gap"], "rows": [[2.0], [4.0]], "counts": [2]}, rank=1, world_size=2)
    assert meter.means() == {"gap": 2.0}


# -- what the user sees ----------------------------------------------------------------------------


def line(images: int, **rest) -> dict:
    time = {"seconds": 30.0, "images_per_second": 200.0, "data_wait": 0.0}
    return {
        "kind": "train", "images": images, "gap": 0.5, "regime": "balanced", "time": time, **rest
    }  # fmt: skip


def test_the_line_of_progress() -> None:
    config = Config()
    config.train.images = 100_000
    text = figures(line(12_800), config)
    assert text == (
        "12,800 images · 200 img/s · gap +0.5 · balanced · data 0.0% of time · ETA 7 min"
    )
    config.train.max_minutes = 1
    assert figures(line(12_800), config).endswith("ETA 30 s")
    assert time_share(line(12_800), config) == 50_000
    config.train.max_minutes, config.train.pause_images = 0, 22_800
    assert figures(line(12_800), config).endswith("ETA 50 s")  # it ends there for now
    assert "samples collapse" in figures(line(1, regime="samples collapse"), config)


def test_data_that_needs_a_look_is_in_the_line_of_progress() -> None:
    record = line(12_800)
    record["time"] |= {"data_wait": 0.034, "data_bad": 3, "data_retries": 0}
    assert "data 3.4% of time · [yellow]3 bad samples[/] · ETA" in figures(record, Config())
    record["time"] |= {"data_bad": 0, "data_retries": 1200}
    assert "data 3.4% of time · 1,200 reads again · ETA" in figures(record, Config())


def test_durations() -> None:
    assert [duration(s) for s in (5, 89, 90, 5399, 5400, 100_000)] == [
        "5 s", "89 s", "2 min", "90 min", "1 h 30 min", "27 h 46 min",
    ]  # fmt: skip


def test_progress_survives_records_that_are_dropped_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A roll-back cuts the file under the reader; it may have grown past the old end since."""
    from rich.console import Console

    folder = RunFolder(tmp_path)
    folder.append(line(10))
    rollback = {"kind": "rollback", "from_images": 30, "lr_scale": 0.5, "reason": "lost"}
    with TrainingProgress(Console(), Config(), folder.metrics) as progress:
        folder.append(line(20))
        progress._read()
        folder.truncate_metrics(10)
        folder.append({"images": 10, **rollback})
        folder.append(line(20, padding="x" * 1000))
        progress._read()
        folder.append(line(30))
    shown = capsys.readouterr().out
    assert shown.count("rolled back from 30 to 10 images, learning rates × 0.5: lost") == 1
    assert "30 images" in shown


def test_the_last_record_is_shown_though_it_came_before_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines come every 10 seconds; what came in between is shown at the end, and nothing twice."""
    from rich.console import Console

    folder = RunFolder(tmp_path)
    with TrainingProgress(Console(), Config(), folder.metrics) as progress:
        folder.append(line(10))
        progress._read()
        folder.append(line(20))
        progress._read()
        assert "20 images" not in capsys.readouterr().out
    assert capsys.readouterr().out.count("20 images") == 1
    with TrainingProgress(Console(), Config(), folder.metrics) as progress:
        folder.append(line(30))
        progress._read()
    assert capsys.readouterr().out.count("30 images") == 1


def test_terminal_sends_chatter_to_the_log_and_words_to_the_user(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from vmcmc_dist.engine.terminal import Terminal\n"
        "print('before', flush=True)\n"
        "with Terminal(Path(sys.argv[1])) as terminal:\n"
        "    print('chatter'); os.write(2, b'from C\\n')\n"
        "    subprocess.run(['echo', 'from a child'])\n"
        "    terminal.console.print('words')\n"
        "print('after')\n"
    )
    log = tmp_path / "log.txt"
    done = subprocess.run([sys.executable, "-c", code, str(log)], capture_output=True, text=True)
    assert done.stdout.split() == ["before", "words", "after"] and done.stderr == ""
    assert sorted(log.read_text().splitlines()) == ["chatter", "from C", "from a child"]
