"""`featherseg explain` of every bundle, with the weights of a run of its own."""

import pytest

from pipelines import datasets, explain
from tests.bundles.running import BUNDLES

CHANNELS = {
    "lits": ["image"],
    "brain_tumour": ["FLAIR", "T1w", "T1gd", "T2w"],
    "inbreast": ["image"],
    "dce_us": ["red", "green", "blue"],
    "ceus": ["contrast", "B-mode"],
}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_case_of_the_bundle_is_explained_by_its_own_run(workspaces, monkeypatch, bundle):
    folder, _ = workspaces(bundle)
    monkeypatch.chdir(folder)
    case = datasets.get(bundle).index(f"data/{bundle}", labelled=False)[-1]["case"]
    done = explain.explain(bundle, case=case, options={"run_name": "a", "device": "cpu"})
    assert done.picture.stat().st_size > 10_000
    assert done.record["case"] == case
    assert done.record["network"] == "BasicUNet"
    assert done.record["weights"] == f"runs/{bundle}/a/model.pt"
    assert done.record["image"] == [len(CHANNELS[bundle]), 32, 32]
    assert (done.record["slice"] is not None) == (bundle in ("lits", "brain_tumour"))
    assert done.record["methods"]["gradcam"] == {"layer": "down_4", "grid": [2, 2]}
    for method in ("vanilla", "smooth"):
        shares = done.record["methods"][method]["shares"]
        assert list(shares) == CHANNELS[bundle]
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares.values()) > 0.01  # every channel is one that the network looks at
