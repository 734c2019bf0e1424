from functools import partial

import pytest

from tests.making.scaling_files import written


@pytest.fixture
def write(tmp_path):
    """Writes a scaling file; gives its path."""
    return partial(written, tmp_path)
