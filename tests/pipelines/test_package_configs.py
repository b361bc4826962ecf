import json
import re
import shutil

import pytest
from monai.bundle import ConfigParser

from pipelines import package_configs, package_weights, runs
from pipelines.errors import DataError
from pipelines.package_code import strings
from tests.bundles.running import BUNDLES
from tests.conftest import ROOT
from tests.pipelines.package_runs import SECRET, make_run

FITTED = {"whitening": {"mean": [0.0] * 4, "matrix": [[1.0, 0, 0, 0]] * 4}}
every_bundle = pytest.mark.parametrize("bundle", BUNDLES)


def changes(bundle):
    """What makes a bundle's configuration one of a run: what it fitted."""
    return FITTED if bundle == "brain_tumour" else {}


def make(bundle, **options):
    """The run of a bundle with these options, and the configurations of its package."""
    file = make_run(runs.ROOT / bundle / "mine", bundle, **changes(bundle), **options)
    return of(bundle, package_weights.from_file(bundle, file))


def of(bundle, found):
    train, inference = (
        package_configs.flat(f"bundles/{bundle}/{name}.json") for name in ("train", "inference")
    )
    model = package_configs.model_of(found, train, inference)
    return package_configs.packaged(f"featherseg_{bundle}", found, model, train, inference)


@every_bundle
def test_nothing_leads_to_another_file_the_project_or_this_machine(workspace, bundle):
    configs, targets = make(bundle)
    assert configs.keys() == {"train.json", "inference.json", "evaluate.json", "multi_gpu_train.json"}
    for config in configs.values():
        texts = list(strings(config))
        assert not [text for text in texts if text.startswith("%") or "bundles/" in text]
        assert not [text for text in texts if SECRET in text or str(workspace) in text or str(ROOT) in text]
        assert not [text for text in texts if package_configs.FOLLOWING.search(text)]
        own = [text for text in texts if text.startswith(("$import", "$from")) and "pipelines" in text]
        assert own == []
    assert "pipelines.packaged.Origin" in targets
    assert not any(target.startswith("pipelines.registry") for target in targets)  # it serves MLflow's names


@every_bundle
def test_network_and_settings_are_those_of_the_weights(workspace, bundle):
    configs, _ = make(bundle, learning_rate=0.0077, batch_size=3, num_folds=4)
    for name in ("train.json", "inference.json"):
        config = configs[name]
        assert config["network_def"]["_target_"] == "BasicUNet"
        assert config["network_def"]["features"] == [4, 4, 8, 8, 8, 4]
        assert config["image_size"] == [32, 32]
    # And the recipe of their training, but for where it ran and what it was called.
    train = configs["train.json"]
    assert [train[key] for key in ("learning_rate", "batch_size", "num_folds")] == [0.0077, 3, 4]
    assert train["dataset_dir"] == f"data/{bundle}"
    assert train["cache_dir"] == f"runs/{bundle}/cache"
    assert train["run_name"] is None


@every_bundle
def test_expressions_of_a_bundle_stay_expressions(workspace, bundle):
    configs, _ = make(bundle)
    train, own = configs["train.json"], package_configs.flat(f"bundles/{bundle}/train.json")
    for key in ("device", "input_shape", "num_workers", "amp"):
        assert train[key] == own[key]
    assert train["train"]["handlers"][0] == own["train"]["handlers"][0]
    assert list(train["train"]) == list(own["train"])


@every_bundle
def test_overlays_fit_the_training(workspace, bundle):
    configs, _ = make(bundle)
    for name, config in configs.items():
        (workspace / name).write_text(json.dumps(config))
    both = ConfigParser()
    both.read_config([str(workspace / "train.json"), str(workspace / "evaluate.json")])
    both.resolve_macro_and_relative_ids()
    assert both.get("split") == "$@origin.split(@cases, @num_folds, @split_file)"
    assert "featherseg" in both.get("evaluate::dataset::_target_")
    names = {name for text in strings(both.get()) for name in re.findall(r"@code::(\w+)", text)}
    assert names <= both.get("code").keys()
    assert both.get("initialize::1") == "$@origin.require(@fold)"
    several = ConfigParser()
    several.read_config([str(workspace / "train.json"), str(workspace / "multi_gpu_train.json")])
    handlers = several.get("train::handlers")
    assert handlers[-1]["_target_"] == f"featherseg_{bundle}.pipelines.distributed.SyncBuffers"


@pytest.mark.skipif("brain_tumour" not in BUNDLES, reason="no bundle fits anything to its training cases")
def test_what_was_fitted_is_written_out_and_fitted_again_in_a_training(workspace):
    configs, _ = make("brain_tumour")
    assert configs["train.json"]["whitening"].startswith("$@code::whitening.fit(")
    for name in ("inference.json", "evaluate.json"):
        assert configs[name]["fitted"] == FITTED
        assert configs[name]["whitening"].startswith("$@code::packaged.fitted('whitening', @weights_file")
    found = package_weights.Weights(workspace / "bare.pt", {})
    with pytest.raises(DataError, match="expected weights with a record of whitening"):
        of("brain_tumour", found)


def test_weights_without_a_record_have_the_bundles_own_network(workspace):
    configs, _ = of("lits", package_weights.Weights(workspace / "bare.pt", {}))
    own = package_configs.flat("bundles/lits/train.json")
    network = configs["inference.json"]["network_def"]
    assert network["_target_"] == f"featherseg_lits.{own['network_def']['_target_']}"
    assert network["_requires_"] == "@code::path"
    assert configs["inference.json"]["image_size"] == own["image_size"]
    assert configs["evaluate.json"]["trained_on"] == {}


def test_settings_that_differ_are_told(workspace):
    file = make_run(workspace / "runs/lits/mine", "lits", window=[-50, 100])
    train, inference = (package_configs.flat(f"bundles/lits/{name}.json") for name in ("train", "inference"))
    model = package_configs.model_of(package_weights.from_file("lits", file), train, inference)
    assert model.differing == {"window": [-50, 100], "image_size": [32, 32]}
    assert model.input_shape == [1, 32, 32]


def test_a_network_of_other_than_plain_values_is_refused(workspace):
    found = package_weights.Weights(workspace / "m.pt", {"network_def": {"_target_": "x", "a": {1, 2}}})
    with pytest.raises(DataError, match="expected a network and settings in plain values"):
        of("lits", found)


def test_a_file_that_is_not_there_is_told(workspace):
    shutil.copytree(ROOT / "bundles/dce_us", workspace / "alone", ignore=shutil.ignore_patterns("models"))
    (workspace / "bundles").unlink()
    with pytest.raises(DataError, match=r"expected bundles/lits/train\.json, of which .*project's folder"):
        package_configs.flat("alone/train.json")
