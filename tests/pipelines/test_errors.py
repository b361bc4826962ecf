import subprocess
import sys

import pytest
from monai.bundle import ConfigParser

from pipelines.errors import DataError, user_message
from tests.conftest import ROOT

PROGRAM = """
from pipelines.errors import DataError, one_line_errors
one_line_errors()
try:
    raise {error}("expected this, found that")
except Exception as error:
    raise RuntimeError("wrapped") from error
"""


def run(error):
    program = PROGRAM.format(error=error)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_an_error_of_the_users_data_is_one_line_however_deep_it_is_wrapped():
    done = run("DataError")
    assert done.returncode == 1
    assert done.stderr == "featherseg: expected this, found that\n"


def test_a_bug_keeps_its_traceback():
    assert "Traceback" in run("KeyError").stderr
    assert user_message(KeyError("a")) is None
    assert user_message(DataError("a")) == "a"


def test_a_class_that_is_not_there_is_named_in_one_line():
    parser = ConfigParser({"network": {"_target_": "networks.Nope"}})
    with pytest.raises(Exception) as raised:
        parser.get_parsed_content("network")
    assert user_message(raised.value).startswith(
        "expected a class that can be imported, found networks.Nope;"
    )
    assert user_message(ModuleNotFoundError("No module named 'nope'")) is None
