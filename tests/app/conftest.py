"""The explorer's models, with the embedded one loaded."""

from __future__ import annotations

import pytest

from rvelens.app.models import Models


@pytest.fixture(scope="module")
def models():
    models = Models()
    models.get("rvelens/tiny")
    return models
