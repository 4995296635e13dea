"""A small study to write to: rows that are a pure function of trial, part and generation."""

import math

import results

SETTING_COLUMNS = (
    results.Column("model", "string", "", "network family"),
    results.Column("lr", "float", "1", "learning rate"),
    results.Column("depth", "int", "layers", "number of layers"),
    results.Column("augment", "bool", "", "whether images are augmented"),
)


def value_of(column, number):
    """Some value of the column's type; different numbers give different ones."""
    kinds = {"string": f"w{number}", "int": number, "float": number / 8, "bool": number % 2 == 1}
    kinds["floats"] = [number / 8, -math.inf]  # of which single precision holds every digit
    return kinds[column.type]


def rows_of(table, *, first=0, count=3, **fixed):
    """Rows of a table's own columns, numbered from `first`."""
    columns = results.TABLES[table].columns
    return [
        {**{column.name: value_of(column, number) for column in columns}, **fixed}
        for number in range(first, first + count)
    ]


def keys_of(seed=0, **leaves):
    return {
        "study": "sample",
        "setting_key": "5e77",
        "seed": seed,
        "model": "mlp",
        "lr": 0.1,
        "depth": 3,
        "augment": False,
        **leaves,
    }


TRIAL = {
    "wall_seconds": 1.5,
    "lane_steps": 100,
    "lane_width": 4,
    "is_sentinel_exact": True,
    "test_loss": math.nan,
    "test_accuracy": 0.5,
    "torch_version": "2.6",
    "reference_digest": "d0",
}

KERNEL_ROWS = {"kernel": rows_of("kernel")}


class Writer:
    """Writes parts of the sample study with everything defaulted."""

    def __init__(self, study, lease_id):
        self.study = study
        self.lease_id = lease_id

    def __call__(self, part="a", tables=None, *, trial_key="t0", **changes):
        asked = {
            "covers": {"steps": [1, 2]},
            "trial": TRIAL,
            "keys": keys_of(),
            "status": "ok",
            "lease_id": self.lease_id,
            **changes,
        }
        return results.write_part(
            self.study, trial_key=trial_key, part=part, tables=KERNEL_ROWS if tables is None else tables, **asked
        )
