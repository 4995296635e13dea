"""What the first run pins, and what of it studies of earlier versions still tell."""

import json

import pytest

import search_spaces
from study.manifest import FILE, Declared, declare, read_declared, write_declared
from twophase.config import Protocol
from twophase.errors import BadInput

BASE = {"name": "s", "base": {"data": "digits", "num_steps": 60, "model": "mlp"}}


def space(**chaos):
    return search_spaces.load({**BASE, "chaos": {"fork_steps": [0, 20], **chaos}})


def pins(declared):
    return declared.perturbation, declared.primary_magnitude, declared.measure, declared.protocol


FIRST = space(magnitudes=[1e-2, 1e-3], perturbation=["gaussian", "gaussian_absolute"], path_points=5)
PINNED = ("gaussian", 1e-2, "end", Protocol(path_points=5))
LATER = [
    space(magnitudes=[0.5]),
    space(magnitudes=[2.0], perturbation=["gaussian_absolute"]),
    space(measure_steps=["30"], train_sample=10),
    space(primary={"indicator": "test_barrier"}),
]


def test_the_first_run_pins_magnitude_kind_measure_and_protocol(tmp_path):
    declared = declare(FIRST, None)
    assert pins(declared) == PINNED
    for later in LATER:
        write_declared(tmp_path, declared)
        declared = declare(later, read_declared(tmp_path))
        assert pins(declared) == PINNED
    assert declared.magnitudes[0] == 2.0
    with pytest.raises(BadInput, match=r"chaos.primary.magnitude was pinned to 0.01"):
        declare(space(magnitudes=[0.5], primary={"magnitude": 0.5}), declared)


def test_a_primary_without_magnitude_stays_one(tmp_path):
    write_declared(tmp_path, declare(space(perturbation="ulp"), None))
    write_declared(tmp_path, declare(space(magnitudes=[0.5]), read_declared(tmp_path)))
    declared = read_declared(tmp_path)
    assert pins(declared)[:2] == ("ulp", 0.0)
    assert declared.magnitudes == (0.5, 0.0)


def test_a_study_of_an_earlier_version_is_settled_by_its_first_space(tmp_path):
    declared = declare(LATER[1], declare(LATER[0], declare(FIRST, None)))
    write_declared(tmp_path, declared)
    raw = json.loads((tmp_path / FILE).read_text())
    del raw["protocol"]
    raw["primary"]["magnitude"] = None
    (tmp_path / FILE).write_text(json.dumps(raw))
    assert pins(read_declared(tmp_path)) == PINNED
    del raw["spaces"]
    (tmp_path / FILE).write_text(json.dumps(raw))
    assert pins(read_declared(tmp_path)) == ("gaussian", 2.0, "end", None)
    assert isinstance(read_declared(tmp_path), Declared)
