"""The table of numbers: newest records, marks, and which run is better."""

from __future__ import annotations

import pytest

from vmcmc_dist.report.numbers import (
    conditions,
    direction,
    every_number,
    number,
    side_by_side,
    task_tables,
)
from vmcmc_dist.report.run import read_runs
from vmcmc_dist.report.wording import duration, rounded, size


def record(task: str = "synthesis", **more) -> dict:
    return {"task": task, "n": 1000, "figures": {"fd_refined": 4.0}} | more


def test_the_newest_record_of_each_run_stands_in_its_column(make_run) -> None:
    runs = read_runs(
        [
            make_run("a", evaluations=[record(figures={"fd_refined": 9.0}), record()]),
            make_run("b", evaluations=[record("ood", figures={"auroc_energy": 0.9})]),
        ]
    )
    synthesis, ood = task_tables(runs)
    assert (synthesis.task, ood.task) == ("synthesis", "ood")  # in the order of the tasks
    assert [n and n.text for n in synthesis.rows[0].numbers] == ["4", None]
    assert [n and n.text for n in ood.rows[0].numbers] == [None, "0.9"]
    assert synthesis.records[1] is None


def test_one_run_has_what_is_compared_in_columns(make_run) -> None:
    figures = {
        "n_real": 500, "fd_refined": 4.0, "is_refined": 5.0, "fd_real": 0.5, "is_proposals": 3.0,
        "is": 1.5, "features": "x",
    }  # fmt: skip
    (table,) = task_tables(read_runs([make_run(evaluations=[record(figures=figures)])]))
    assert table.sides == ("refined", "proposals", "real")
    assert [(row.figure, [n and n.text for n in row.numbers]) for row in table.rows] == [
        ("fd", ["4", None, "0.5"]),
        ("is", ["5", "3", None]),
        ("n_real", ["500"]),
        ("is", ["1.5"]),
        ("features", ["x"]),
    ]
    assert table.rows[0].numbers[0].biased and table.rows[0].direction == "↓"


def test_every_record_is_listed_newest_first(make_run) -> None:
    runs = read_runs([make_run(evaluations=[record(figures={"fd": 9.0}), record()])])
    assert [(name, n.text) for _, _, name, n in every_number(runs)] == [
        ("fd_refined", "4"),
        ("fd", "9"),
    ]


@pytest.mark.parametrize(
    ("name", "n", "biased"),
    [
        ("fd_resnet56", 10_000, True),
        ("fid", 49_999, True),
        ("fid", 50_000, False),
        ("is_refined", 1000, True),
        ("kid_refined", 1000, False),  # its estimator has no bias
        ("fidelity", 1000, False),
        ("auroc_energy", 1000, False),
        ("fd_resnet56", None, False),
    ],
)
def test_biased_numbers_are_marked(name: str, n: int | None, biased: bool) -> None:
    assert number(name, 3.5, {"n": n}).biased is biased


def test_texts_and_lists_are_never_biased() -> None:
    assert not number("fd_features", "resnet56", {"n": 10}).biased
    assert number("fd_curve", [1.0, 2.0], {"n": 10}).text == "2 values, 1 … 2"


@pytest.mark.parametrize(
    ("figure", "values", "best"),
    [
        ("fd_refined", (3.0, 4.0), [True, False]),
        ("psnr", (20.0, 25.0), [False, True]),
        ("fd_real", (3.0, 4.0), [False, False]),  # of data, not of a run
        ("gap_nats", (3.0, 4.0), [False, False]),
        ("fd_refined", (3.0, 3.0), [False, False]),
        ("fd_refined", ("a", 3.0), [False, False]),
    ],
)
def test_the_better_run(make_run, figure: str, values: tuple, best: list[bool]) -> None:
    made = [make_run(evaluations=[record(figures={figure: value})]) for value in values]
    (table,) = task_tables(read_runs(made))
    assert [n.best for n in table.rows[0].numbers if n] == best


def test_runs_judged_on_other_numbers_of_samples_are_not_ranked(make_run) -> None:
    made = [make_run(evaluations=[record(n=n)]) for n in (1000, 10_000)]
    made.append(make_run(evaluations=[record(figures={"fd_refined": 2.0})]))
    (table,) = task_tables(read_runs(made))
    assert not any(n.best for n in table.rows[0].numbers if n)


def test_directions() -> None:
    assert direction("fd_refined") == direction("kl_data_model") == "↓"
    assert direction("auroc_energy_noise") == direction("psnr_hidden") == "↑"
    assert direction("this_task") == direction("steps") == direction("kid_std_x") == ""


def test_what_is_compared_stands_together() -> None:
    names = ["n", "fd_x_refined", "is_refined", "fd_x_real", "is_real", "n", "real"]
    together = ["n", "fd_x_refined", "fd_x_real", "is_refined", "is_real", "real"]
    assert side_by_side(names) == together


def test_conditions_leave_out_what_a_record_does_not_say() -> None:
    assert conditions({"n": 1000, "ema": False, "commit": "0123456789ab+"}) == [
        ("n", "1,000", "1000"),
        ("weights", "as trained", "as trained"),
        ("commit", "01234567", "0123456789ab+"),
    ]
    assert conditions({}) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.833810261853941, "3.834"),
        (-0.00012345678, "−0.0001235"),
        (2.5e-05, "2.5e−05"),
        (12345.6, "12,346"),
        (1234567, "1,234,567"),
        (0, "0"),
        (True, "yes"),
        (None, "–"),
        (float("nan"), "nan"),
        ([3, 1.5, 2], "3 values, 1.5 … 3"),
        (["a"], "1 values"),
        ([], "0 values"),
        ("text", "text"),
    ],
)
def test_rounding(value, text: str) -> None:
    assert rounded(value) == text


def test_durations_and_sizes() -> None:
    assert [duration(s) for s in (45, 600, 11_520)] == ["45 s", "10.0 min", "3 h 12 min"]
    assert [size(b) for b in (812_345, 3_400_000)] == ["812 kB", "3.4 MB"]
