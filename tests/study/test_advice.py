"""`twophase more`: which seeds and fork steps to add, and the lines that add them."""

import json
import shlex
import shutil

import pandas as pd
import pytest

import search_spaces
from study import cli
from study.advice import advice, advice_text
from study.evidence import Evidence
from study.manifest import Declared
from tests.study.conftest import TINY
from tests.study.rows import OTHER, healthy

DECLARED = Declared(magnitudes=(1e-2,))


def test_a_row_per_setting_in_words():
    chaos = pd.concat([healthy(), healthy(OTHER, curve=(0.0, 0.0, 0.0))])
    said = advice(chaos, DECLARED, Evidence(), 1.5)
    assert said["lr"].tolist() == [0.1, 0.2]
    first, second = said.to_dict("records")
    # Seeds that agree: it is the grid that is coarse, between 10 and 100.
    assert (first["num_seeds"], first["is_enough"], second["is_enough"]) == (3, False, True)
    assert all(10 < step < 100 for step in first["fork_steps"])
    text = advice_text(said, [], 1.5)
    assert "mlp · lr 0.2: stable from the start" in text
    assert "the study keeps no space that makes these settings" in text
    # A child forks at the last step but one at the latest, or where its window still fits.
    late = advice(healthy(curve=(1.0, 1.0, 1.0)), DECLARED, Evidence(), 1.5).iloc[0]
    assert late["fork_steps"] == (199,)
    early = healthy(curve=(1.0, 1.0, 1.0)).assign(measure_step=lambda rows: rows["fork_step"] + 60)
    sentinels = pd.concat([early[early["perturbation"] == "none"].assign(measure_step=step) for step in (60, 70, 160)])
    chaos = pd.concat([early[early["perturbation"] != "none"], sentinels])
    windowed = Declared(measure="+60", measures=("+60",), magnitudes=(1e-2,))
    assert advice(chaos, windowed, Evidence(), 1.5).iloc[0]["fork_steps"] == (140,)


@pytest.fixture
def chaotic(whole, tmp_path):
    """The finished study under a threshold that its children don't get below."""
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(whole.path, folder)
    declared = json.loads((folder / "_declared.json").read_text())
    declared["primary"]["threshold"] = 1e-12
    (folder / "_declared.json").write_text(json.dumps(declared))
    return folder


@pytest.fixture
def said(chaotic, capsys):
    assert cli.main(["more", str(chaotic), "--ratio", "1.2", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_its_lines_make_the_spaces_that_are_wanted(said, chaotic, tmp_path, capsys):
    lacking = {row["setting_key"]: row for row in said["advice"] if not row["is_enough"]}
    assert lacking
    lines = {line["setting_key"]: line for line in said["lines"]}
    assert set(lacking) <= set(lines)
    (tmp_path / "space.yaml").write_text(search_spaces.space_yaml(TINY))
    for key, line in lines.items():
        overrides = search_spaces.parse_overrides(line["set"])
        space = search_spaces.load(TINY, overrides)
        rows = [lacking[key]] if key else list(lacking.values())
        assert {point.key for point in space.settings} == ({key} if key else set(lacking))
        assert len(space.seeds) >= max(2 + row["num_seeds"] - row["seeds_now"] for row in rows)
        for row in rows:
            assert {0, 20, 40, *row["fork_steps"]} <= set(space.chaos.fork_steps or (0, 20, 40))
        assert cli.main(["plan", str(tmp_path / "space.yaml"), "--root", str(chaotic.parent), "--json"]
                        + [word for pair in line["set"] for word in ("--set", pair)]) == 0  # fmt: skip
        assert json.loads(capsys.readouterr().out)["todo_lane_steps"] == line["todo_lane_steps"] > 0


def test_its_text_can_be_pasted(said, chaotic, capsys):
    assert cli.main(["more", str(chaotic), "--ratio", "1.2"]) == 0
    out = capsys.readouterr().out
    pasted = [shlex.split(line)[3:] for line in out.splitlines() if line.startswith("  twophase run SPACE")]
    assert [[word for word in words if word != "--set"] for words in pasted] == [line["set"] for line in said["lines"]]


def test_bad_ratios_and_studies(answer, whole):
    assert "ratio must be > 1" in answer("more", str(whole.path), "--ratio", "1")
    assert "--ratio" in answer("more", str(whole.path), "--ratio", "narrow")
    assert "nothing" in answer("more", "nothing")
