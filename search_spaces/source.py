"""Where a space comes from: a preset, a YAML file or a dict, with overrides laid over it."""

import io
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from twophase.config import LEAVES
from twophase.errors import BadInput, unknown

BLOCKS: dict[str, tuple[str, ...]] = {
    "chaos": (
        "perturbation",
        "fork_steps",
        "magnitudes",
        "num_directions",
        "controls",
        "measure_steps",
        "window",
        "primary",
        "path_points",
        "train_sample",
        "alignment",
        "sharpness",
    ),
    "chaos.fork_steps.refine": ("start", "factor", "most"),
    "chaos.primary": ("indicator", "threshold", "magnitude"),
    "cone": ("kernel", "probe_size", "probe_seed", "steps", "sketch", "children"),
    "cone.steps": ("num_log", "num_linear"),
    "growth": ("fork_steps", "window", "burn_in", "num_directions", "magnitudes"),
    "switch": ("steps",),
    "switch.steps": ("num_log", "num_linear"),
    "training": ("lane_width", "snapshots"),
    "search": ("goals", "constraints", "sampler", "num_settings", "seed", "pruner"),
}
SETTINGS_PAGE = "docs/settings.md"
TOP = ("name", "base", "settings", "axes", "seeds", "fold", "chaos", "cone", "growth", "switch", "training", "search")


def preset_names() -> list[str]:
    """Names of the presets that come with the program."""
    folder = resources.files("search_spaces.presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """A preset as YAML."""
    return (resources.files("search_spaces.presets") / f"{name}.yaml").read_text(encoding="utf-8")


def preset_summary(name: str) -> str:
    """What a preset is for: its first comment."""
    return preset_text(name).partition("\n")[0].removeprefix("#").strip()


def read_source(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Read a space as it was written.

    Args:
        source: A preset's name, a YAML file or a dict.

    Returns:
        Its top level, keys checked.

    Raises:
        BadInput: There is no such preset or file, it doesn't parse, is empty, or has an unknown key.
    """
    if isinstance(source, Mapping):
        raw: Any = _plain(source)
        where = "space"
    elif str(source) in preset_names():
        raw, where = _parse(preset_text(str(source)), str(source)), str(source)
    else:
        raw, where = _parse(_file_text(Path(source)), str(source)), str(source)
    if not isinstance(raw, dict):
        raise BadInput(
            f"{where} must be a mapping with keys {', '.join(TOP)}, got {'nothing' if raw is None else repr(raw)}"
        )
    for key in raw:
        if key not in TOP:
            raise unknown("key", key, TOP)
    read: dict[str, Any] = raw
    return read


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs of the command line; values are YAML.

    Raises:
        BadInput: A pair has no ``=`` or its value doesn't parse.
    """
    overrides = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--set takes KEY=VALUE, such as lr=0.05, got {pair!r}")
        overrides[key.strip()] = _parse(text, f"--set {key}")
    return overrides


def apply_overrides(raw: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay overrides over a space: the command line wins, and setting an axis' leaf replaces the axis.

    A whole block, such as ``cone`` or ``axes``, is replaced by the one given; null leaves it out.

    Raises:
        BadInput: A key is unknown.
    """
    merged: dict[str, Any] = _plain(raw)
    for key, value in overrides.items():
        block, _, name = key.rpartition(".")
        if key in LEAVES or (block == "base" and name in LEAVES):
            _everywhere(merged, name, value)
        elif block == "axes":
            if name not in LEAVES:
                raise unknown("axis", name, LEAVES, see=SETTINGS_PAGE)
            _drop(merged, name)
            _block(merged, "axes")[name] = value
        elif (key in TOP and key != "name") or (block in BLOCKS and name in BLOCKS[block]):
            target = merged
            for part in key.split(".")[:-1]:
                target = _block(target, part)
            target[name] = value
        else:
            raise _unknown_override(key, block)
    return merged


def _unknown_override(key: str, block: str) -> BadInput:
    """Name what stands near the key: its block's own keys where it has one, else the nearest and where all are."""
    if get_close_matches(key, override_keys(), n=1) == ["name"]:
        return BadInput(f"name can't be laid over a space, got key {key!r}; use --name, or launch(…, name=…)")
    if block in BLOCKS:
        return unknown("key", key, [f"{block}.{name}" for name in BLOCKS[block]])
    blocks = ", ".join(f"{name}.<key>" for name in BLOCKS if "." not in name)
    return unknown("key", key, override_keys(), see=f"docs/space.md: settings, {blocks}, axes.<setting>, seeds, fold")


def space_yaml(source: Mapping[str, Any]) -> str:
    """A space as YAML, to be read again."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.width = 110
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(_plain(source), stream)
    return stream.getvalue()


def override_keys() -> list[str]:
    """Keys that ``--set`` knows: settings, keys of blocks, whole blocks."""
    inner = [f"{block}.{name}" for block, names in BLOCKS.items() for name in names]
    return [*LEAVES, *inner, *TOP]


def _everywhere(raw: dict[str, Any], name: str, value: Any) -> None:
    _drop(raw, name)
    _block(raw, "base")[name] = value


def _drop(raw: dict[str, Any], name: str) -> None:
    for part in (raw.get("base"), raw.get("axes"), *(raw.get("settings") or [])):
        if isinstance(part, dict):
            part.pop(name, None)


def _block(raw: dict[str, Any], name: str) -> dict[str, Any]:
    if raw.get(name) is None:
        raw[name] = {}
    if not isinstance(raw[name], dict):
        raise BadInput(f"{name} must be a mapping, got {raw[name]!r}")
    block: dict[str, Any] = raw[name]
    return block


def _plain(value: Any) -> Any:
    """Copy nested mappings and sequences, so that what the caller holds stays as it was."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _file_text(path: Path) -> str:
    try:
        if path.is_dir():
            rule = f"a space must be a preset or a YAML file, got the folder '{path}'"
            raise BadInput(f"{rule}; presets: {', '.join(preset_names())}")
        if not path.is_file():
            near = get_close_matches(str(path), preset_names(), n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise BadInput(f"no preset and no file is named '{path}'; {hint}presets: {', '.join(preset_names())}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} cannot be read: {error}") from None


def _parse(text: str, where: str) -> Any:
    try:
        return _plain(YAML(typ="safe", pure=True).load(text))
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem, _, _ = str(error.problem or error.context).partition(" with value ")  # of a key twice: always "{}"
        raise BadInput(f"{where}{line}: not YAML: {problem}") from None
    except RecursionError:
        raise BadInput(f"{where} must not be nested so deeply, nor hold itself; write it out flat") from None
    except YAMLError as error:
        raise BadInput(f"{where}: not YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:  # what looks like a number or a date and is none
        raise BadInput(f"{where}: not YAML: {error}") from None
