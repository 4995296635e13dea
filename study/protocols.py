"""Which protocol each trial was measured by: rows of different ones are never pooled."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

import pandas as pd

import search_spaces
from results import StudyError
from study.manifest import Declared
from twophase.config import Protocol

UNKNOWN = "unknown"
"""What the `trials` table says of trials of a version that didn't keep their protocol."""


def protocol_text(protocol: Protocol) -> str:
    """A protocol as the `trials` table has it: JSON, every field."""
    return json.dumps(asdict(protocol))


def protocol_words(text: str) -> str:
    """The same in words that a line has room for, e.g. ``path points 11, probe size 64``."""
    if text == UNKNOWN:
        return text
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in json.loads(text).items())


def read_protocol(text: str) -> Protocol:
    """The reverse of `protocol_text`; a field that the writer didn't know yet is at its default.

    Raises:
        StudyError: A field is unknown.
    """
    values = json.loads(text)
    extra = sorted(values.keys() - {known.name for known in fields(Protocol)})
    if extra:
        raise StudyError(f"a trial was measured with {', '.join(extra)}, unknown to this version; upgrade twophase")
    return Protocol(**values)


@dataclass(frozen=True)
class Protocols:
    """The protocols of a study.

    Attributes:
        of_trial: Trial key -> protocol; trials of which nothing is known are missing.
        pinned: That of the first run, by which the primary is measured; None where nothing tells.
        also_pinned: Those that other studies, read together with this one, have pinned.
    """

    of_trial: Mapping[str, Protocol] = field(default_factory=dict)
    pinned: Protocol | None = None
    also_pinned: frozenset[Protocol] = frozenset()

    def one(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Protocol | None, dict[Protocol, int]]:
        """Keep the rows of one protocol: the pinned one if there are any of it, else the first that ran.

        Args:
            rows: With `trial_key`.

        Returns:
            Those rows; their protocol, None where nothing tells; of every other protocol the number of trials left out.
        """
        trials = list(dict.fromkeys(rows["trial_key"]))
        found = [self.of_trial.get(key) for key in trials]
        present = set(found)
        if len(present) <= 1:
            return rows, next(iter(present), None), {}
        in_order = [self.pinned, *self.of_trial.values(), None]
        chosen = next(protocol for protocol in in_order if protocol in present)
        left_out = {p: found.count(p) for p in present if p is not None and p != chosen}
        kept = {key for key, protocol in zip(trials, found, strict=True) if protocol == chosen}
        return rows[rows["trial_key"].isin(kept)], chosen, left_out

    def one_each(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Keep the rows of one protocol for each setting, as `one` chooses it."""
        kept = [self.one(of_setting)[0] for _, of_setting in rows.groupby("setting_key", sort=False)]
        return pd.concat(kept) if kept else rows

    def difference(self, protocol: Protocol | None) -> str:
        """Say in which fields a protocol differs from the pinned one, e.g. ``path_points 5 (not 11)``."""
        if protocol is None or self.pinned is None:
            return ""
        one, other = asdict(protocol), asdict(self.pinned)
        return ", ".join(f"{name} {one[name]} (not {other[name]})" for name in one if one[name] != other[name])

    def undeclared(self, protocol: Protocol | None) -> str:
        """The same, empty too where another study that is read together with this one has pinned it."""
        return "" if protocol in self.also_pinned else self.difference(protocol)


def read_protocols(trials: pd.DataFrame, declared: Declared) -> Protocols:
    """Read each trial's protocol: as its row says, else as the spaces do that planned it.

    Args:
        trials: The `trials` table.
        declared: The study's declarations.
    """
    texts = dict(zip(trials["trial_key"], trials["protocol"], strict=True))
    known = {key: read_protocol(text) for key, text in texts.items() if text != UNKNOWN}
    if len(known) < len(texts):
        planned = {t.key: t.protocol for source in declared.spaces for t in search_spaces.load(source).trials()}
        known |= {key: planned[key] for key in texts if key in planned and key not in known}
    return Protocols(known, declared.protocol)
