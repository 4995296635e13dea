"""The presets of the paper's protocol, shrunk to seconds, on files in CIFAR's own format."""

import pytest

import search_spaces
from study import cli, launch
from tests import cifar_samples
from twophase.errors import BadInput

SHRUNK = {
    "device": "cpu",
    "num_steps": 12,
    "batch_size": 16,
    "num_train": 64,
    "num_test": 20,
    "seeds": 2,
    "chaos.fork_steps": [0, 4],
    "chaos.measure_steps": [6, "end"],
    "chaos.train_sample": 32,
    "chaos.path_points": 3,
    "cone": {"kernel": "trace", "probe_size": 4, "steps": [0, 12]},
    "switch": {"steps": [4]},
}


@pytest.mark.parametrize(
    ("preset", "smaller"),
    [
        ("cifar10_resnet20", {"depth": 8, "width": 2}),
        pytest.param("cifar10_vgg16", {"depth": 11, "width": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_preset_end_to_end(preset, smaller, in_process, tmp_path, monkeypatch):
    monkeypatch.setenv("TWOPHASE_CACHE", str(tmp_path / "cache"))
    cifar_samples.make_small("cifar10", monkeypatch)
    with pytest.raises(BadInput, match="data 'cifar10' must lie in"):
        launch(preset, tmp_path, overrides={**SHRUNK, **smaller})
    assert not (tmp_path / preset).exists(), "nothing was made"
    cifar_samples.write_binary("cifar10", tmp_path / "cache")
    study = launch(preset, tmp_path, overrides={**SHRUNK, **smaller})
    trials, chaos = study.table("trials"), study.table("chaos")
    assert list(trials.status) == ["ok", "ok"]
    assert trials.is_sentinel_exact.all()
    assert set(chaos.measure_step) == {6, 12}
    assert set(chaos.perturbation) == {"none", "gaussian", "order"}
    assert set(study.table("switch").switch_step) == {4, 12}
    assert set(trials.augmentation) == {"flip_shift"}


@pytest.mark.parametrize("preset", ["cifar10_resnet20", "cifar10_vgg16"])
def test_the_paper_s_protocol(preset):
    (point,) = search_spaces.load(preset).settings
    assert (point.num_train, point.batch_size, point.num_steps) == (50_000, 128, 160 * (50_000 // 128))
    assert (point.lr, point.momentum, point.weight_decay, point.gamma) == (0.1, 0.9, 1e-4, 0.1)
    assert point.milestone_fractions == (80 / 160, 120 / 160)
    assert cli.main(["plan", preset]) == 0
