"""What Tune tells of a worker's death reaches whoever is told of it."""

import pytest
from ray.train._internal import storage
from ray.tune.experiment import Trial

from study.hired import Watch


class Ears:
    """Hears of deaths in a foreman's place."""

    def __init__(self):
        self.heard = []

    def bury(self, worker, cause):
        self.heard.append((worker, cause))


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """One of Tune's, without Ray: its store beside what the driver keeps, and never brought up to date."""
    monkeypatch.setattr(storage, "_get_ray_train_session_dir", lambda: str(tmp_path / "session"))
    place = storage.StorageContext(storage_path=str(tmp_path), experiment_dir_name="sweep", trial_dir_name="one")
    made = Trial("worker", stub=True, storage=place)
    made.init_local_path()
    return made


def test_the_cause_of_a_death_is_its_last_line(trial):
    ears = Ears()
    trial.handle_error(RuntimeError("the actor died\n  File x.py\nImportError: no module named mine\n"))
    Watch(ears).on_trial_error(0, [trial], trial)
    assert ears.heard == [(trial.trial_id, "ImportError: no module named mine")]


def test_a_death_without_a_cause_is_told_too(trial):
    ears = Ears()
    Watch(ears).on_trial_error(0, [trial], trial)
    assert ears.heard == [(trial.trial_id, "no cause was given")]
