import pytest
from sample_study import SETTING_COLUMNS, Writer

import results


@pytest.fixture
def study(tmp_path):
    return results.create(tmp_path / "runs" / "sample", study="sample", setting_columns=SETTING_COLUMNS)


@pytest.fixture
def lease(study):
    with results.Lease.acquire(study.path) as lease:
        yield lease


@pytest.fixture
def write(study, lease):
    return Writer(study, lease.id)
