import sys

import pytest
from packaging.requirements import Requirement

from pipelines.errors import DataError
from pipelines.label import environment


@pytest.fixture
def copy(tmp_path):
    """A working copy that has only what the recipe is made of."""
    for name in ("constraints.txt", environment.CONSTRAINTS, "setup.cfg"):
        (tmp_path / name).write_bytes((environment.ROOT / name).read_bytes())
    return tmp_path


def pinned(root):
    lines = [
        line
        for name in ("constraints.txt", environment.CONSTRAINTS)
        for line in (root / name).read_text().splitlines()
    ]
    return {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}


def test_every_package_that_is_named_has_its_version():
    named = [*environment.requirements(), "monailabel", "pydicom-seg"]
    names = {Requirement(line).name.lower() for line in named}
    assert {name.replace("_", "-") for name in names} <= pinned(environment.ROOT)
    assert "itk-io" in names and "itk" not in names


def test_monai_label_is_installed_last_and_without_what_it_names():
    titles = [title for title, _ in environment.steps()]
    arguments = dict(environment.steps())
    assert titles[0] == "PyTorch" and titles[-1] == "MONAI Label"
    assert arguments["MONAI Label"][0] == "--no-deps"


@pytest.mark.parametrize(
    "name, before, after",
    [
        ("constraints.txt", "torch==", "torch==1"),
        (environment.CONSTRAINTS, "monailabel==", "monailabel==1"),
        ("setup.cfg", "    watchdog\n", "    watchdog>6\n"),
    ],
)
def test_another_version_is_another_recipe(copy, name, before, after):
    assert environment.recipe(copy) == environment.recipe(copy) == environment.recipe()
    text = (copy / name).read_text()
    assert before in text
    (copy / name).write_text(text.replace(before, after))
    assert environment.recipe(copy) != environment.recipe()


def test_what_is_not_installed_here_changes_nothing(copy):
    text = (copy / "setup.cfg").read_text()
    (copy / "setup.cfg").write_text(text.replace("    ray>=2.40\n", "    ray>=3\n"))
    assert text != (copy / "setup.cfg").read_text() and environment.recipe(copy) == environment.recipe()


def test_outside_a_working_copy_it_says_so(tmp_path):
    with pytest.raises(DataError, match=rf"working copy.*found no {environment.CONSTRAINTS}"):
        environment.ensure(tmp_path / "environment", tmp_path)


def made_up(folder, root):
    """An environment as one that was installed."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    (folder / "recipe").write_text(environment.recipe(root))


def test_an_environment_that_is_there_is_not_made_again(copy, tmp_path, monkeypatch):
    folder, made = tmp_path / "environment", []
    monkeypatch.setattr(environment, "_make", lambda *given: made.append(given) or made_up(*given))
    assert not environment.is_ready(folder, copy)
    assert environment.ensure(folder, copy) == folder / "bin" / "python"
    assert environment.ensure(folder, copy) == folder / "bin" / "python"
    assert made == [(folder, copy)]
    (copy / "constraints.txt").write_text((copy / "constraints.txt").read_text() + "\n# changed\n")
    assert not environment.is_ready(folder, copy)


def test_an_installation_that_fails_leaves_no_environment_that_looks_whole(copy, tmp_path, monkeypatch):
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(
        environment, "steps", lambda root=None: [("PyTorch", ["--no-index", "no-such-package"])]
    )
    with pytest.raises(DataError, match=r"expected PyTorch to be installed.*no-such-package.*install\.log"):
        environment.ensure(folder, copy)
    assert not environment.is_ready(folder, copy)
    assert "no-such-package" in (folder / "install.log").read_text()


def test_a_python_that_monai_label_does_not_run_with_is_refused(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "PYTHONS", ((3, 1),))
    with pytest.raises(DataError, match=r"expected Python 3\.1 for MONAI Label, found 3\."):
        environment.ensure(tmp_path / "environment", copy)


def test_every_interpreter_of_the_environment_loads_the_shims(tmp_path):
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    environment.add_shims(tmp_path)
    (line,) = [path.read_text() for path in site.glob("*.pth")]
    assert line == "import featherseg_label_shims; featherseg_label_shims.install()\n"
    assert (site / "featherseg_label_shims.py").is_file()
    assert environment.size(tmp_path) == sum(path.stat().st_size for path in site.iterdir())
