"""What bundles need, imported; for the process that others fork from, in which this is imported first."""

import gc
import importlib

# Some of these only come with the first step of a training, or with the first run that is tracked.
for name in (
    "monai.bundle",
    "mlflow.store.tracking.sqlalchemy_store",
    "torch._dynamo",
    "pipelines.clips",
    "pipelines.datasets",
    "pipelines.recording",
    "pipelines.segment",
    "pipelines.tracking",
    "pipelines.validation",
):
    importlib.import_module(name)

# Or each of them would look through all of this for cycles, and copy its pages to note that it did.
gc.collect()
gc.freeze()
