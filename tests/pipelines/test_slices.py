import os

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, Lambdad, RandFlipd, RandGaussianNoised
from torch.utils.data import SequentialSampler

from pipelines import slices
from pipelines.errors import DataError
from pipelines.slices import SliceDataset, SliceSampler, VolumeDataset, step_back
from tests.chains import PREPARE

RANDOM = Compose([RandFlipd(["image", "label"], prob=0.5), RandGaussianNoised("image", prob=0.7, std=3)])


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def dataset(cases, cache, **kwargs):
    return SliceDataset(cases, PREPARE, cache_dir=cache, workers=0, **kwargs)


def test_a_slice_is_that_of_the_prepared_volume_to_the_bit(cases, cache):
    ds = dataset(cases, cache)
    assert len(ds) == 8 + 9 + 10
    expected = [PREPARE(dict(case)) for case in cases]
    for index in (0, 7, 8, 16, 26, -1):
        item, volume, z = ds[index], ds.volume_of[index], ds.slice_of[index]
        for key in ("image", "label"):
            assert item[key].dtype == torch.float32
            assert torch.equal(item[key], torch.as_tensor(expected[volume][key][..., z]).float())
    assert ds.has_lesion.sum() == 6
    with pytest.raises(IndexError):
        ds[27]


def test_whole_volumes_come_from_the_same_cache(cases, cache):
    dataset(cases, cache)
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    item = VolumeDataset(cases, PREPARE, cache_dir=cache, workers=0)[1]
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    expected = PREPARE(dict(cases[1]))
    assert torch.equal(torch.as_tensor(item["image"]), torch.as_tensor(expected["image"]))
    assert torch.equal(item["image"].affine, expected["image"].affine)
    assert item["case"] == "volume-1"


def test_a_picture_is_one_slice_and_comes_back_without_a_third_axis(cases, cache):
    pictures = Compose([PREPARE, Lambdad(["image", "label"], lambda volume: volume[..., 4])])
    expected = [pictures(dict(case)) for case in cases]
    ds = SliceDataset(cases, pictures, cache_dir=cache, workers=0)
    assert len(ds) == len(cases)
    whole = VolumeDataset(cases, pictures, cache_dir=cache, workers=0)
    for index, one in enumerate(expected):
        for key in ("image", "label"):
            assert torch.equal(ds[index][key], torch.as_tensor(one[key]).float())
            assert torch.equal(torch.as_tensor(whole[index][key]), torch.as_tensor(one[key]).float())
    assert [bool(one["label"].any()) for one in expected] == ds.has_lesion.tolist()


def test_slices_kept_on_a_device_are_the_same(cases, cache):
    ds, kept = dataset(cases, cache), dataset(cases, cache, device="cpu")
    for facts in kept.volumes.facts:
        os.truncate(facts["file"], 0)  # so that nothing is read any more
    array = kept.kept[0]
    assert (array.dtype, len(kept)) == (torch.uint8, len(ds))
    whole = [PREPARE(dict(case)) for case in cases]
    for index in (0, 8, 26):
        for key in ("image", "label"):
            expected = whole[ds.volume_of[index]][key][..., ds.slice_of[index]]
            assert torch.equal(kept[index][key], torch.as_tensor(expected).float())


def test_random_draws_depend_on_seed_epoch_and_index_alone(cases, cache):
    def epoch(number, workers, **kwargs):
        ds = dataset(cases, cache, transform=RANDOM, **kwargs)
        sampler = SliceSampler(ds, seed=3)
        loader = DataLoader(ds, batch_size=4, sampler=sampler, num_workers=workers)
        for before in range(1, number):  # epochs that an interrupted training has behind it
            sampler.set_epoch(before)
            next(iter(loader))
        sampler.set_epoch(number)
        return torch.cat([batch["image"].as_tensor() for batch in loader])

    first = epoch(2, workers=0)
    assert torch.equal(first, epoch(2, workers=2))
    ds = dataset(cases, cache, transform=RANDOM)
    ds.set_epoch(2)
    assert torch.equal(ds[5]["image"].as_tensor(), ds[5]["image"].as_tensor())
    assert not torch.equal(first, epoch(1, workers=0))
    assert not torch.equal(first, epoch(2, workers=0, seed=1))


def test_workers_step_back(cases, cache):
    class Niceness(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return os.nice(0)

    loader = DataLoader(Niceness(), num_workers=1, worker_init_fn=step_back)
    assert next(iter(loader)).item() == 19
    assert os.nice(0) < 19


def test_samplers_choose_slices(cases, cache):
    ds = dataset(cases, cache)
    every = SliceSampler(ds)
    assert sorted(every) == list(range(27))
    assert list(every) == list(every)
    every.set_epoch(1)
    first = list(every)
    every.set_epoch(2)
    assert list(every) != first
    lesion = SliceSampler(ds, balance="lesion")
    assert sorted(lesion) == np.flatnonzero(ds.has_lesion).tolist()
    balanced = SliceSampler(ds, balance="balanced")
    assert len(balanced) == len(list(balanced)) == 12
    assert ds.has_lesion[list(balanced)].sum() == 6
    with pytest.raises(DataError, match="one of all, balanced, lesion, found 'some'"):
        SliceSampler(ds, balance="some")
    with pytest.raises(DataError, match="slices with a lesion"):
        SliceSampler(dataset(cases[2:], cache), balance="lesion")


def test_processes_share_the_slices_and_take_as_many_batches(cases, cache, monkeypatch):
    ds = dataset(cases, cache)
    monkeypatch.setattr(slices.idist, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(slices.idist, "get_rank", lambda rank=rank: rank)
        shares.append(list(SliceSampler(ds, seed=1)))
    assert len(shares[0]) == len(shares[1]) == 14
    assert set(shares[0]) | set(shares[1]) == set(range(27))


def test_a_plain_sampler_works_too(cases, cache):
    ds = dataset(cases, cache, transform=RANDOM)
    assert len(list(DataLoader(ds, sampler=SequentialSampler(ds), batch_size=27))) == 1
