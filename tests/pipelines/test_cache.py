import errno
import functools
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, Lambdad, RandRotated

from pipelines.cache import VolumeCache, describe
from pipelines.errors import DataError
from tests.chains import LOAD, PREPARE, is_lesion, to_levels


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def prepared(cases, cache):
    return VolumeCache(cases, PREPARE, cache, workers=0)


def test_preparing_in_workers_gives_the_same_files(cases, cache, tmp_path):
    prepared(cases, cache)
    VolumeCache(cases, PREPARE, tmp_path / "other", workers=2)
    for path in sorted(cache.iterdir()):
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_a_changed_file_or_preprocessing_is_prepared_anew(cases, cache):
    first = {facts["file"] for facts in prepared(cases, cache).facts}
    os.utime(cases[0]["label"], (0, 0))
    second = {facts["file"] for facts in prepared(cases, cache).facts}
    assert len(first & second) == 2
    other = Compose([LOAD, Lambdad("image", torch.zeros_like), Lambdad("label", is_lesion)])
    third = {facts["file"] for facts in VolumeCache(cases, other, cache, workers=0).facts}
    assert not third & (first | second)


def test_each_of_several_labels_and_what_is_said_of_a_case_count_but_not_its_name(cases, cache):
    def files(**change):
        case = {**cases[0], "label": [cases[0]["label"]], **change}
        join = Compose([Lambdad("label", lambda labels: labels[0]), *PREPARE.transforms])
        return VolumeCache([case], join, cache, workers=0).facts[0]["file"]

    first = files()
    assert files(case="renamed", patient="other") == first
    assert files(panels={"contrast": [0, 0, 4, 4]}) != first
    os.utime(cases[0]["label"], (0, 0))
    assert files() != first


@pytest.mark.parametrize("damage", ["cut", "no note", "half note"])
def test_a_half_written_cache_is_never_used(cases, cache, damage):
    volumes = prepared(cases, cache)
    expected = volumes.read(0, count=8)
    array = Path(volumes.facts[0]["file"])
    note = array.with_suffix(".json")
    if damage == "cut":
        array.write_bytes(array.read_bytes()[:-10])
    elif damage == "no note":
        note.unlink()
        array.write_bytes(b"\0" * array.stat().st_size)
    else:
        note.write_text(note.read_text()[:20])
    assert np.array_equal(prepared(cases, cache).read(0, count=8), expected)


def test_files_at_fault_are_named_also_from_workers(cases, cache):
    path = Path(cases[1]["image"])
    path.write_bytes(path.read_bytes()[:-40])
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"volume-1.nii.gz: expected a whole image file") as caught:
            VolumeCache(cases, PREPARE, cache, workers=workers)
        assert "Traceback" not in str(caught.value)


def test_a_full_disk_while_caching_is_named_and_leaves_nothing_half(cases, cache):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(DataError, match="found the disk full; free some or choose another folder"):
            prepared(cases, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not list(cache.iterdir())
    assert len(prepared(cases, cache)) == 3


def test_a_read_only_cache_folder_is_named(cases, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match=r"expected a folder that can be written to, found .*read-only"):
        prepared(cases, tmp_path / "read-only")


def test_values_that_the_cache_would_change_are_refused(cases, cache):
    unrounded = Compose([LOAD, Lambdad("image", lambda image: image / 3)])
    with pytest.raises(ValueError, match="must end with rounding to whole numbers"):
        VolumeCache(cases, unrounded, cache, workers=0)
    halves = Compose([LOAD, Lambdad("image", lambda image: (image / 3).half().float())])
    volumes = VolumeCache(cases, halves, cache, workers=0)
    assert volumes.facts[0]["dtype"] == "float16"
    with pytest.raises(ValueError, match="RandRotated cannot be part of it"):
        VolumeCache(cases, Compose([LOAD, RandRotated("image")]), cache)


def test_no_case_and_a_missing_file_are_named(cases, cache):
    with pytest.raises(DataError, match="at least one case"):
        prepared([], cache)
    Path(cases[0]["image"]).unlink()
    with pytest.raises(DataError, match=r"expected a file at .*volume-0.nii.gz, found none"):
        prepared(cases, cache)


def test_a_description_tells_transforms_apart_and_nothing_else():
    same = Compose([LOAD, Lambdad("image", to_levels), Lambdad("label", is_lesion)])
    text = json.dumps(describe(PREPARE), sort_keys=True)
    assert json.dumps(describe(same), sort_keys=True) == text
    other = Compose([LOAD, Lambdad("image", is_lesion), Lambdad("label", is_lesion)])
    assert json.dumps(describe(other), sort_keys=True) != text
    assert " at 0x" not in text
    assert describe(functools.partial(round, ndigits=1)) != describe(functools.partial(round, ndigits=2))
    evaluated = [eval("lambda a: a + 1"), eval("lambda a: a + 1"), eval("lambda a: a + 2")]
    first, same, changed = map(describe, evaluated)
    assert first == same != changed


def test_a_description_is_the_same_after_use_and_in_another_process(cases, workspace):
    config = ConfigParser()
    config.read_config("bundles/lits/train.json")
    chain = config.get_parsed_content("preprocessing")
    before = json.dumps(describe(chain), sort_keys=True)
    chain(dict(cases[0]))
    assert json.dumps(describe(chain), sort_keys=True) == before
    program = (
        "import json; from monai.bundle import ConfigParser; from pipelines.cache import describe\n"
        "config = ConfigParser(); config.read_config('bundles/lits/train.json')\n"
        "print(json.dumps(describe(config.get_parsed_content('preprocessing')), sort_keys=True))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == before
