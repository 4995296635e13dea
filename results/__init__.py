"""What a study keeps: schema, atomic store, query. Imports none of our other packages."""

from results.commits import STATUSES, TRIAL_COLUMNS, Commit, CommittedFile, require_files
from results.errors import LeaseHeld, LeaseLost, SchemaError, StudyError
from results.heartbeat import Heartbeat, beat, end_beat, running
from results.integrity import Finding, check
from results.layout import SCHEMA_FILE, is_study, require_room, studies_in
from results.lease import Lease, live_holder
from results.packs import compact, read_commits
from results.places import is_remote, place
from results.query import Study, create, open  # noqa: A004 - `results.open(path)` is the contract
from results.schema import IDENTITY, VERSION, Column, Table, arrow_schema
from results.store import remove_commit, sweep, write_derived, write_part, write_trials
from results.tables import TABLES

__all__ = [
    "IDENTITY",
    "SCHEMA_FILE",
    "STATUSES",
    "TABLES",
    "TRIAL_COLUMNS",
    "VERSION",
    "Column",
    "Commit",
    "CommittedFile",
    "Finding",
    "Heartbeat",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "SchemaError",
    "Study",
    "StudyError",
    "Table",
    "arrow_schema",
    "beat",
    "check",
    "compact",
    "create",
    "end_beat",
    "is_remote",
    "is_study",
    "live_holder",
    "open",
    "place",
    "read_commits",
    "remove_commit",
    "require_files",
    "require_room",
    "running",
    "studies_in",
    "sweep",
    "write_derived",
    "write_part",
    "write_trials",
]
