import pytest

import pellucid as pl

PROMPT = "The Eiffel Tower is in the city of"
CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"


@pytest.fixture(scope="session")
def model():
    return pl.Model("bundled")
