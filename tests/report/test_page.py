"""The page as text: nothing foreign in it, what is missing is said, and the command line."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vmcmc_dist.cli import main
from vmcmc_dist.errors import DataError, ResourceError
from vmcmc_dist.report.cost import cost_rows
from vmcmc_dist.report.html import embedded
from vmcmc_dist.report.origin import commands, config_rows
from vmcmc_dist.report.page import headline, write_report
from vmcmc_dist.report.run import read_run, read_runs

HOSTILE = "<script>alert('x')</script>\"'&</title>"


class Elements(HTMLParser):
    """Every element's tag and attributes, and the text of the page."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.found)


def page_of(tmp_path: Path, *runs: Path, **how) -> str:
    return write_report(runs, tmp_path / "page.html", **how).path.read_text()


def test_everything_is_inside(make_run, tmp_path: Path) -> None:
    elements = Elements(page_of(tmp_path, make_run(), make_run("b")))
    assert not {"link", "iframe", "object", "base"} & {
        tag for tag, a in elements.found if a.get("href") != "data:,"
    }
    for tag, attributes in elements.found:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
        assert not any(name.startswith("on") for name in attributes), attributes
    policy = next(a["content"] for _, a in elements.found if "http-equiv" in a)
    assert policy and "default-src 'none'" in policy


def test_hostile_names_add_no_element(make_run, tmp_path: Path) -> None:
    def run(name: str) -> Path:
        record = {"task": name, "figures": {name: name}, "note": name, "commit": name, "n": name}
        folder = make_run(name, evaluations=[record], settings={"data.root": name})
        environment = json.loads((folder / "environment.json").read_text())
        environment |= {"command": name, "commit": name, "cpu": name}
        (folder / "environment.json").write_text(json.dumps(environment))
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "train", "images": 3100, name: 1.0}) + "\n")
        return folder

    tame = [tag for tag, _ in Elements(page_of(tmp_path, run("tame"), make_run("b"))).found]
    wild = Elements(page_of(tmp_path, run(HOSTILE), make_run("b")))
    assert [tag for tag, _ in wild.found] == tame
    assert any(HOSTILE in text for text in wild.texts)


def test_embedded_json_cannot_end_its_element() -> None:
    value = {"a": "</script><!--\u2028&"}
    assert not set("<>&\u2028") & set(embedded(value))
    assert json.loads(embedded(value)) == value


def test_missing_parts_name_the_command_that_makes_them(make_run, tmp_path: Path) -> None:
    folder = make_run("bare", evaluations=[], grids=())
    (folder / "metrics.jsonl").unlink()
    (folder / "environment.json").unlink()
    shutil.rmtree(folder / "samples")
    text = page_of(tmp_path, folder)
    assert "No grids yet" in text and "No records yet" in text
    assert f"vmcmc train {folder}/config.yaml" in text
    assert text.count(f"vmcmc evaluate {folder} --task all") == 2
    assert "has no environment.json" in text


def test_a_run_without_an_evaluation_beside_one_with(make_run, tmp_path: Path) -> None:
    done, fresh = make_run("done"), make_run("fresh", evaluations=[])
    text = page_of(tmp_path, done, fresh)
    assert f"vmcmc evaluate {fresh} --task synthesis" in text
    assert "Not made for this run" in text


def test_grids_that_are_left_out_are_said(make_run, tmp_path: Path) -> None:
    folder = make_run("long", grids=tuple(range(100, 1100, 100)))
    text = page_of(tmp_path, folder, grids=4)
    assert "4 of the 10 grids of long are kept here" in text
    assert text.count('class="frame"') == 4
    assert "grids of long are kept" not in page_of(tmp_path, folder)


def test_pictures_that_cannot_be_read_are_said(make_run, tmp_path: Path) -> None:
    folder = make_run()
    (folder / "samples" / "000002000.png").write_text("torn")
    report = write_report([folder], tmp_path / "page.html")
    assert len(report.notes) == 1 and "000002000.png" in report.notes[0]
    assert "000002000.png cannot be read as a picture" in report.path.read_text()


def test_the_headline_marks_a_biased_distance(make_run) -> None:
    record = {"task": "synthesis", "figures": {"fd_x_refined": 4.0, "fd_x_real": 0.5}}
    for n, text in ((1000, "4 †"), (50_000, "4")):
        facts = headline(read_run(make_run(evaluations=[record | {"n": n}])))
        assert [short for what, short, _ in facts if what == "fd_x"] == [text]
    assert ("images seen", "3 k", "3,000") in facts
    assert ("training", "5.0 min", "300.0 s") in facts
    assert ("commit", "01234567+", "0123456789abcdef0123456789abcdef01234567+") in facts


def test_what_differs_between_configs(make_run) -> None:
    runs = read_runs([make_run("a"), make_run("b", settings={"langevin.adjusted": True})])
    rows = {key: values for key, _, values in config_rows(runs, differing=True)}
    assert rows == {"name": ["a", "b"], "langevin.adjusted": ["false", "true"]}
    everything = {key: meaning for key, meaning, _ in config_rows(runs, differing=False)}
    assert len(everything) > 90 and everything["langevin.steps"]


def test_a_key_that_only_one_run_knows_differs(make_run) -> None:
    old, new = read_runs([make_run("a"), make_run("a")])
    new.config["train.fresh"] = None
    rows = {key: values for key, _, values in config_rows([old, new], differing=True)}
    assert rows == {"train.fresh": ["–", "null"]}


def test_cost(make_run) -> None:
    rows = dict(cost_rows([read_run(make_run())], price=1.2))
    assert rows["CPU"] == ["EPYC, 4 cores"] and rows["GPU"] == ["none"]
    assert rows["Wall time of training"] == ["5.0 min"]
    assert rows["Speed, from start to end"] == ["10 images / s"]
    assert rows["Core-hours"] == ["0.3333"]  # 4 cores for 300 s
    assert rows["Cost at 1.2 USD / h"] == ["0.10 USD"]
    assert rows["Evaluation"] == ["83 s, 2 records"]


def test_cost_on_gpus(make_run) -> None:
    run = read_run(make_run(settings={"resources.workers": 8, "resources.device": "cuda"}))
    run.environment["gpus"] = ["H100"] * 8
    rows = dict(cost_rows([run], price=None))
    assert rows["GPU-hours"] == ["0.6667"] and "Core-hours" not in rows
    assert rows["GPU"] == ["8 × H100"] and not any("Cost" in name for name in rows)


def test_commands_to_make_it_again(make_run) -> None:
    folder = make_run("a")
    lines = commands(read_run(folder))
    assert lines[0] == "git checkout 0123456789abcdef0123456789abcdef01234567"
    assert lines[1] == "vmcmc train configs/faces.yaml name=a"
    assert lines[2] == (
        f"vmcmc evaluate {folder} --task synthesis --checkpoint 3000 n=1000 steps=0 "
        "temperature=null seed=0"
    )
    assert lines[3] == f"vmcmc report {folder}" and len(lines) == 4


# -- the command line ------------------------------------------------------------------------------


def test_the_command_writes_the_page_and_tells_its_size(make_run, capsys) -> None:
    folder = make_run()
    assert main(["report", str(folder), "--price", "2"]) == 0
    out, _ = capsys.readouterr()
    page = folder / "report.html"
    assert out.strip() == f"{page}  ({page.stat().st_size / 1e3:.0f} kB)"
    assert "Cost at 2 USD / h" in page.read_text()


def test_several_runs_are_written_here(make_run, capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(make_run("a")), str(make_run("b"))]) == 0
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "nowhere is not there"),
        ((".",), "is no run folder"),
        ((".", "--grids", "0"), "--grids must be at least 1"),
        ((".", "--price", "-1"), "--price must be 0 or more"),
        ((".", "--price", "nan"), "--price must be 0 or more"),
    ],
)
def test_an_error_of_the_user_is_one_line(words, said: str, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    out, err = capsys.readouterr()
    assert said in err and err.startswith("vmcmc: ") and out == ""
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(make_run, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="--out"):
        write_report([make_run()], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="--out"):
        write_report([make_run()], tmp_path / "file" / "page.html")


def test_no_page_is_begun_for_a_folder_that_is_no_run(make_run, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_report([make_run(), tmp_path / "gone"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
