import pytest

from pipelines.errors import DataError, NoDataError
from pipelines.label.told import told
from transforms import ImageError


@pytest.mark.parametrize("kind", [DataError, NoDataError, ImageError])
def test_errors_of_ours_are_told_also_where_they_are_the_cause(kind):
    error = RuntimeError("applying transform")
    error.__cause__ = kind("expected this, found that")
    assert told(error) == told(error.__cause__) == "expected this, found that"


def test_those_of_a_packaged_bundle_too_whose_classes_are_others():
    class DataError(ValueError):
        pass

    class NoDataError(DataError):
        pass

    assert told(DataError("one")) == "one" and told(NoDataError("two")) == "two"


def test_a_bug_is_not_told():
    assert told(KeyError("image")) is None and told(None) is None
