"""An editable install is found from any folder, that which holds the clone included."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
FILES = ("pyproject.toml", "README.md", "LICENSE")
PACKAGES = ("results", "search_spaces", "study", "twophase")


def test_a_clone_in_the_working_folder_does_not_hide_the_package(tmp_path):
    """To Python a folder named twophase is a package, an empty one, where the path has none that is whole."""
    clone, wheels, site = tmp_path / "twophase", tmp_path / "wheels", tmp_path / "site"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, clone)
    wheels.mkdir()
    subprocess.run([sys.executable, "-c", BUILD, wheels], cwd=clone, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    # -S: without the site-packages of this environment, which may have another twophase; `addsitedir` reads .pth files.
    find = "importlib.util.find_spec('twophase').origin"
    seen = f"import importlib.util, site; site.addsitedir({str(site)!r}); print({find})"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", seen], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(clone / "twophase" / "__init__.py"), done.stderr
