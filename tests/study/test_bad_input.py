"""Every bad input is answered by one line with field, rule and value, exit status 2, before anything starts."""

import pytest

import results
from study import cli, driver
from study.columns import setting_columns

SPACE = """
name: tiny
base: {data: digits, num_steps: 60, num_train: 600, batch_size: 32}
settings: [{model: mlp, depth: 2, width: 16}, {model: cnn, depth: 3, width: 4}]
seeds: 2
chaos: {fork_steps: [0, 20, 40], magnitudes: [1e-2], num_directions: 1}
"""

OVERRIDES = {
    "unknown key": ("chaso.controls=1", ["chaso.controls", "did you mean 'chaos.controls'"]),
    "unknown setting": ("num_step=5", ["num_step", "did you mean 'num_steps'"]),
    "unknown axis": ("axes.wdith=[1]", ["axes.wdith"]),
    "lr text": ("lr=fast", ["lr", "number", "'fast'"]),
    "lr 0": ("lr=0", ["lr must be > 0", "got 0"]),
    "lr negative": ("lr=-0.1", ["lr must be > 0", "-0.1"]),
    "lr nan": ("lr=.nan", ["lr", "finite", "nan"]),
    "lr inf": ("lr=.inf", ["lr", "finite", "inf"]),
    "lr list": ("lr=[0.1]", ["lr", "axes.lr"]),
    "width fraction": ("width=2.5", ["width", "integer", "2.5"]),
    "width 0": ("width=0", ["width", "1 to", "got 0"]),
    "depth huge": ("depth=100000", ["depth", "1 to", "100000"]),
    "momentum 1": ("momentum=1", ["momentum must be < 1", "got 1"]),
    "weight decay": ("weight_decay=-1", ["weight_decay must be >= 0", "-1"]),
    "seeds 0": ("seeds=0", ["seeds", "got 0"]),
    "seeds text": ("seeds=many", ["seeds", "many"]),
    "seeds repeated": ("seeds=[1,1]", ["seeds", "[1, 1]"]),
    "fork at the end": ("chaos.fork_steps=[0,60]", ["chaos.fork_steps", "below num_steps (60", "got 60"]),
    "fork beyond": ("chaos.fork_steps=[70]", ["chaos.fork_steps", "got 70"]),
    "fork negative": ("chaos.fork_steps=[-1]", ["chaos.fork_steps", ">= 0", "-1"]),
    "fork twice": ("chaos.fork_steps=[5,5]", ["chaos.fork_steps", "5 twice"]),
    "fork text": ("chaos.fork_steps=[soon]", ["chaos.fork_steps", "'soon'"]),
    "magnitude 0": ("chaos.magnitudes=[0]", ["chaos.magnitudes", "> 0", "got 0"]),
    "magnitude negative": ("chaos.magnitudes=[-1e-3]", ["chaos.magnitudes", "> 0", "-0.001"]),
    "magnitude nan": ("chaos.magnitudes=[.nan]", ["chaos.magnitudes", "nan"]),
    "magnitude twice": ("chaos.magnitudes=[1e-2,0.01]", ["chaos.magnitudes", "0.01 twice"]),
    "no magnitudes": ("chaos.magnitudes=[]", ["chaos.magnitudes", "at least one"]),
    "no directions": ("chaos.num_directions=0", ["chaos.num_directions", ">= 1", "got 0"]),
    "controls": ("chaos.controls=-1", ["chaos.controls", ">= 0", "-1"]),
    "perturbation": ("chaos.perturbation=gausian", ["gausian", "did you mean 'gaussian'"]),
    "indicator": ("chaos.primary.indicator=barrier", ["barrier", "test_barrier"]),
    "threshold": ("chaos.primary.threshold=0", ["chaos.primary.threshold", "> 0", "got 0"]),
    "primary not run": ("chaos.primary.magnitude=1e-3", ["chaos.primary.magnitude", "0.01", "0.001"]),
    "past the end": ("chaos.measure_steps=['+30']", ["chaos.measure_steps", "'+30'", "step 70"]),
    "measure 0": ("chaos.measure_steps=[0]", ["chaos.measure_steps", "'0'"]),
    "empty axis": ("axes.lr=[]", ["axes.lr", "at least one"]),
    "axis repeats": ("axes.lr=[0.1,1e-1]", ["axes.lr", "0.1 twice"]),
    "log from 0": ("axes.lr={log: [0, 1], num: 3}", ["axes.lr.log", "0 < low < high", "[0, 1]"]),
    "log without num": ("axes.lr={log: [0.1, 1]}", ["axes.lr", "num"]),
    "axis not the schedule's": ("axes.gamma=[0.1,0.5]", ["gamma does not apply", "cosine"]),
    "model": ("model=resent", ["unknown model 'resent'", "known: cnn, mlp"]),
    "data": ("data=minst1d", ["unknown data 'minst1d'", "did you mean 'mnist1d'"]),
    "schedule": ("schedule=cosin", ["unknown schedule 'cosin'", "cosine"]),
    "activation": ("activation=swish", ["unknown activation 'swish'", "gelu, relu, tanh"]),
    "norm_layer": ("norm_layer=bath", ["unknown norm_layer 'bath'", "batch"]),
    "batch": ("batch_size=601", ["batch_size must be <= num_train (600)", "601"]),
    "digits": ("num_train=1700", ["num_train + num_test must be <= 1797", "1700"]),
    "no equals sign": ("lr", ["--set", "KEY=VALUE", "'lr'"]),
    "value no YAML": ("lr=[", ["--set lr", "not YAML"]),
}

FILES = {
    "empty": ("", ["must be a mapping", "nothing"]),
    "list": ("- 1", ["must be a mapping"]),
    "no YAML": ("name: [", ["line", "not YAML"]),
    "key twice": ("name: a\nname: b\n", ["not YAML", "duplicate key"]),
    "no name": ("base: {lr: 0.1}", ["name must be given"]),
    "name with slash": ("name: a/b", ["name must be of letters", "'a/b'"]),
    "unknown top": ("name: a\naxis: {}", ["unknown key 'axis'", "did you mean 'axes'"]),
    "unknown in chaos": ("name: a\nchaos: {forks: [1]}", ["unknown key in chaos 'forks'", "fork_steps"]),
    "both": ("name: a\nsettings: [{lr: 0.1}]\naxes: {lr: [0.1, 0.2]}", ["lr", "settings[0]", "axes.lr"]),
    "same setting twice": ("name: a\nsettings: [{lr: 0.1}, {lr: 0.1}]", ["settings must differ", "0.1"]),
}


@pytest.fixture
def answer(tmp_path, monkeypatch, capsys):
    """Run a command that must be refused, and return its one line."""

    def refuse(*_, **__):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(driver, "run_jobs", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)

    def ask(*argv: str) -> str:
        assert cli.main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("twophase: ")
        assert "Traceback" not in err
        return err

    return ask


@pytest.mark.parametrize(("override", "words"), OVERRIDES.values(), ids=OVERRIDES)
def test_overrides(answer, tmp_path, override, words):
    line = answer("run", "tiny.yaml", "--set", override)
    assert all(word in line for word in words), line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("text", "words"), FILES.values(), ids=FILES)
def test_files(answer, tmp_path, text, words):
    (tmp_path / "bad.yaml").write_text(text)
    line = answer("run", "bad.yaml")
    assert all(word in line for word in words), line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "nowhere.yaml"], ["nowhere.yaml", "presets: digits_stable, quick"]),
        (["run", "tiny.yaml", "--workers", "0"], ["workers", ">= 1", "got 0"]),
        (["run", "tiny.yaml", "--workers", "two"], ["--workers", "'two'"]),
        (["run", "tiny.yaml", "--gpus-per-trial", "nan"], ["gpus_per_trial", "nan"]),
        (["run", "tiny.yaml", "--gpus-per-trial", "999"], ["gpus_per_trial", "999"]),
        (["run", "tiny.yaml", "--root", "tiny.yaml"], ["tiny.yaml", "write"]),
        (["run"], ["SPACE"]),
        (["rnu", "tiny.yaml"], ["rnu"]),
        (["run", "tiny.yaml", "--wrokers", "1"], ["--wrokers"]),
        (["locate", "nothing"], ["nothing"]),
        (["check", "nothing"], ["nothing"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_arguments(answer, argv, words):
    line = answer(*argv)
    assert all(word in line for word in words), line


def make_study(folder):
    return results.create(folder, study="tiny", setting_columns=setting_columns())


def test_a_second_driver(answer, tmp_path):
    make_study(tmp_path / "runs" / "tiny")
    with results.Lease.acquire(tmp_path / "runs" / "tiny"):
        line = answer("run", "tiny.yaml")
    assert "pid" in line


def test_a_stray_package_in_the_driver_s_folder(answer, tmp_path):
    (tmp_path / "study.py").write_text("")
    line = answer("run", "tiny.yaml")
    assert str(tmp_path / "study.py") in line


def test_another_primary(answer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(driver, "_run_plan", lambda *_: None)
    assert cli.main(["run", "tiny.yaml"]) == 0
    capsys.readouterr()
    line = answer("run", "tiny.yaml", "--set", "chaos.primary.threshold=0.1")
    assert "chaos.primary.threshold was pinned to 0.05" in line
    assert "0.1" in line


def test_a_study_without_rows(answer, tmp_path):
    make_study(tmp_path / "runs" / "tiny")
    assert "no chaos rows" in answer("locate", "tiny")
