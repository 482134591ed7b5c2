"""Data sets without pictures: drawing them takes a third of a small build."""

import pytest

from pipelines.statistics import page
from sitn_tf.pages.figures import Picture


@pytest.fixture(scope="module", autouse=True)
def pictures_left_out():
    """The page of statistics has the titles alone; tests of the page override this."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("bars", "curves", "parts", "shares"):
            patch.setattr(page, kind, lambda title, *_, **__: Picture(title, ""))
        yield
