import math

import pytest
from sample_study import KERNEL_ROWS, TRIAL, keys_of


def trial(study):
    frame = study.table("trials")
    assert len(frame) == 1
    return frame.iloc[0]


def test_times_and_costs_add_up_and_width_is_the_greatest(study, write):
    write("a", trial={**TRIAL, "lane_width": 8})
    write("b", {}, trial=TRIAL)
    row = trial(study)
    assert (row["wall_seconds"], row["lane_steps"], row["lane_width"]) == (3.0, 200, 8)


def test_keys_stand_in_the_row(study, write):
    write("a", keys=keys_of(seed=7, lr=0.3))
    row = trial(study)
    assert (row["study"], row["trial_key"], row["seed"], row["lr"]) == ("sample", "t0", 7, 0.3)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["ok", "ok"], "ok"),
        (["ok", "diverged"], "diverged"),
        (["failed", "diverged"], "failed"),
        (["diverged", "failed", "ok"], "failed"),
    ],
)
def test_the_worst_status_wins(study, write, statuses, expected):
    for number, status in enumerate(statuses):
        write(f"p{number}", {}, status=status)
    assert trial(study)["status"] == expected


def test_errors_are_joined_once_each(study, write):
    for part, error in (("a", "out of memory"), ("b", "killed"), ("c", "out of memory")):
        write(part, {}, status="failed", error=error)
    assert trial(study)["error"] == "out of memory; killed"


@pytest.mark.parametrize(
    ("stated", "expected"), [([True, True], True), ([True, False], False), ([True, None], True), ([None], False)]
)
def test_one_inexact_sentinel_makes_the_trial_inexact(study, write, stated, expected):
    for number, exact in enumerate(stated):
        write(f"p{number}", trial={} if exact is None else {"is_sentinel_exact": exact})
    assert trial(study)["is_sentinel_exact"] == expected


def test_parts_with_rows_tell_the_reference(study, write):
    write("a", {}, status="failed", trial={"test_loss": 9.0, "torch_version": "2.6"})
    write("b", KERNEL_ROWS, trial={"test_loss": math.nan})
    write("c", KERNEL_ROWS, trial={"test_loss": 0.25})
    row = trial(study)
    assert row["test_loss"] == 0.25
    assert row["torch_version"] == "2.6"
    assert math.isnan(row["test_accuracy"])
    assert row["device_name"] == "unknown"


def test_superseded_parts_do_not_count(study, write):
    write("a", {}, status="failed", error="x")
    write("b", generation=1)
    row = trial(study)
    assert (row["status"], row["lane_steps"]) == ("ok", 100)
