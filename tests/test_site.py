"""The documentation site builds without a warning, asks nothing of the network; cluster files have the right form."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from study import cli

ROOT = Path(__file__).parent.parent
CLUSTERS = ROOT / "docs" / "clusters"


@pytest.mark.docs
def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= 20
    for page in pages:
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"?(https?:[^\"\s>]+)", page.read_text()
        )
        assert loaded == [], page.name
    styles = "".join(path.read_text() for path in tmp_path.rglob("*.css"))
    assert not re.findall(r"url\(['\"]?https?:", styles)


def test_every_page_stands_in_the_site_s_contents():
    """Without mkdocs, so that a page that was added is missed at once."""
    named = set(re.findall(r": ([\w/]+)\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    folder = ROOT / "docs"
    there = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.md")}
    assert named == there | {"index", "changes", "first_sweep"}


def commands_in(text):
    """Each `twophase …` of a script, with its variables given values."""
    for line in re.findall(r"^\s*(?:entrypoint: |[^#\n]*'|)(twophase [^&'\n]+)", text, re.MULTILINE):
        for name, value in {"$space": "quick", "$root": "runs", "$head:$port": "10.0.0.1:6379"}.items():
            line = line.replace(f'"{name}"', value)  # noqa: PLW2901
        yield shlex.split(line.replace("/shared/my_sweep.yaml", "quick"))[1:]


@pytest.mark.parametrize("name", ["kuberay.yaml", "slurm.sh"])
def test_commands_in_cluster_files_are_commands(name):
    (command,) = commands_in((CLUSTERS / name).read_text(encoding="utf-8"))
    given = cli.parser().parse_args(command)
    assert given.command.__name__ == "run"
    assert given.address
    assert given.gpus_per_trial == "auto"


def test_the_slurm_script_is_one():
    checked = subprocess.run(["bash", "-n", str(CLUSTERS / "slurm.sh")], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.docs
def test_the_launcher_s_file_passes_ray_s_own_schema():
    import yaml
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((CLUSTERS / "ray-cluster.yaml").read_text(encoding="utf-8")))
    validate_config(config)
    with pytest.raises(ValidationError, match="max_worker"):  # so that a key misspelt is seen
        validate_config({**config, "max_worker": 4})


def test_the_ray_job_mounts_one_volume_everywhere():
    from ruamel.yaml import YAML

    job = YAML(typ="safe").load(CLUSTERS / "kuberay.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert all(pod["volumes"] == pods[0]["volumes"] for pod in pods)
    assert all(pod["containers"][0]["volumeMounts"][0]["name"] == pod["volumes"][0]["name"] for pod in pods)
