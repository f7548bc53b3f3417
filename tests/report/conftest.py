"""Run folders made by hand, and one browser for all tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from vmcmc_dist.config import Config, to_dict

BROWSERS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
MakeRun = Callable[..., Path]
RECORD = {
    "task": "synthesis",
    "n": 1000,
    "seed": 0,
    "steps": 8,
    "temperature": 2.5e-05,
    "ema": True,
    "images": 3000,
    "commit": "0123456789abcdef",
    "data_checksum": "feedbeef" * 8,
    "settings": {"n": 1000, "steps": 0, "temperature": None, "seed": 0},
    "seconds": 41.5,
    "note": "",
}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    return run_maker(tmp_path)


@pytest.fixture(scope="session")
def make_shared_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """The same for pages that several tests only look at."""
    return run_maker(tmp_path_factory.mktemp("runs"))


def run_maker(folder: Path) -> MakeRun:
    """A maker of runs of 3,000 images: 30 records of training, 3 grids, 2 evaluations."""

    def make(
        name: str = "tiny",
        *,
        scale: float = 1.0,
        settings: dict[str, Any] | None = None,
        grids: tuple[int, ...] = (1000, 2000, 3000),
        evaluations: list[dict[str, Any]] | None = None,
    ) -> Path:
        run = folder / f"run-{len(list(folder.iterdir()))}"
        (run / "samples").mkdir(parents=True)
        config = to_dict(Config()) | {"name": name}
        for key, value in (settings or {}).items():
            group, _, leaf = key.partition(".")
            config[group][leaf] = value
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (run / "environment.json").write_text(
            json.dumps(
                {
                    "command": f"vmcmc train configs/faces.yaml name={name}",
                    "commit": "0123456789abcdef0123456789abcdef01234567+",
                    "python": "3.11.7",
                    "packages": {"torch": "2.13.0"},
                    "cpu": "EPYC",
                    "cpus": 4,
                    "gpus": [],
                }
            )
        )
        lines = [train_record(images, scale) for images in range(100, 3001, 100)]
        for number, images in enumerate(grids):
            image = Image.new("RGB", (120, 80), (40 * number, 90, 200 - 40 * number))
            image.save(run / "samples" / f"{images:09d}.png")
            fd = scale * 0.3 / (1 + number)
            lines.append({"kind": "sample", "images": images, "fd_thumbnail": fd, "spread": 0.4})
        write_lines(run / "metrics.jsonl", lines)
        if evaluations is None:
            grid = {**RECORD, "figures": {"fd_refined": 3.8338 * scale, "is_refined": 5.7117}}
            evaluations = [
                {**grid, "pictures": ["evaluation/synthesis/grid.png"], "images": 2000},
                {**grid, "pictures": ["evaluation/synthesis/grid.png"]},
            ]
        for record in evaluations:
            for picture in record.get("pictures", []):
                (run / picture).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (60, 40), (200, 60, 10)).save(run / picture)
        if evaluations:
            (run / "evaluation").mkdir(exist_ok=True)
            write_lines(run / "evaluation" / "records.jsonl", evaluations)
        return run

    return make


def train_record(images: int, scale: float) -> dict[str, Any]:
    return {
        "kind": "train",
        "images": images,
        "iteration": images // 50,
        "gap": scale * (0.1 - images / 40000),
        "energy_loss": -scale * images / 10000,
        "vae_loss": scale * 400 / images**0.5,
        "energy_data": -0.1,
        "energy_refined": 0.1 * scale,
        "spread_ratio": 0.9,
        "regime": "balanced",
        "time": {"seconds": images / 10, "images_per_second": 10.0, "data_wait": 0.01},
    }


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="session")
def tab() -> Iterator[Any]:
    """A tab of this machine's Chromium, headless, driven by playwright."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium here; `make browser` installs it where root and apt allow it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that containers and root do not have.
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium.new_page()
        chromium.close()


class Visit:
    """A page that is opened, with all that it asks for and complains about."""

    def __init__(self, tab: Any, path: Path, size: tuple[int, int], scheme: str):
        self.page, self.complaints, self.requests = tab, [], []
        self.listeners = {
            "console": lambda message: self.complaints.append(message.text),
            "pageerror": lambda error: self.complaints.append(str(error)),
            "request": lambda request: self.requests.append(request.url),
        }
        for event, listener in self.listeners.items():
            tab.on(event, listener)
        tab.set_viewport_size({"width": size[0], "height": size[1]})
        tab.emulate_media(color_scheme=scheme)
        tab.goto(path.resolve().as_uri())
        tab.wait_for_selector(".chart path", state="attached")

    def close(self) -> None:
        """No complaint, and no request but that for the page itself."""
        for event, listener in self.listeners.items():
            self.page.remove_listener(event, listener)
        assert not self.complaints
        foreign = [url for url in self.requests if not url.startswith("data:")]
        assert len(foreign) == 1 and foreign[0].startswith("file:"), foreign

    def text(self, selector: str) -> str:
        return self.page.text_content(selector).strip()

    def shown_grids(self) -> list[str]:
        """The sources of the grids that can be seen."""
        return self.page.eval_on_selector_all(
            "figure.grid img", "all => all.filter(i => i.offsetWidth).map(i => i.src)"
        )

    def curve(self, panel: int = 0) -> list[str]:
        """The drawn paths of a panel's lines."""
        return self.page.eval_on_selector_all(
            f'[data-panel="{panel}"] path.curve:not(.raw)',
            "all => all.map(p => p.getAttribute('d'))",
        )


@pytest.fixture
def open_page(tab) -> Iterator[Callable[..., Visit]]:
    """Opens pages; at the test's end none may have complained or asked for anything."""
    opened: list[Visit] = []

    def go(path: Path, size: tuple[int, int], scheme: str = "light") -> Visit:
        opened.append(Visit(tab, path, size, scheme))
        return opened[-1]

    yield go
    for one in opened:
        one.close()
