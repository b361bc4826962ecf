"""The `featherseg` command: one verb a room, nothing but argument parsing.

What a verb needs is imported in it, so that `featherseg --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.errors import DataError, user_message

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)

FURTHER = {"allow_extra_args": True, "ignore_unknown_options": True}  # those of a dataset or a bundle
Dataset = Annotated[str, typer.Argument(help="The dataset's name, such as lits or dce_us.")]


@app.callback()
def featherseg() -> None:
    """Lightweight lesion segmentation as MONAI bundles."""


@app.command(context_settings=FURTHER)
def phantom(
    context: typer.Context,
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    cases: Annotated[int, typer.Option(help="How many cases.")] = 12,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    size: Annotated[int, typer.Option(help="Voxels or pixels across the image.")] = 128,
    faults: Annotated[bool, typer.Option("--faults", help="Add a broken case of each kind.")] = False,
) -> None:
    """Write a phantom: made-up images in a dataset's own layout, to try everything without the data.

    Some datasets have further options: brain_tumour --layout raw --coding brats, lits --looks varied.

    Example: featherseg phantom lits --out data/lits --cases 16
    """
    from pipelines import datasets
    from pipelines.datasets.options import options

    given = {"cases": cases, "seed": seed, "size": size, "faults": faults}
    make = datasets.get(dataset).phantom
    if make(out, **given, **options(make, context.args, given)):
        typer.echo(f"wrote the {dataset} phantom of {cases} cases to {out}")
    else:
        typer.echo(f"the same {dataset} phantom of {cases} cases is in {out} already")


@app.command(context_settings=FURTHER)
def check(
    context: typer.Context,
    dataset: Dataset,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the data, as downloaded.")],
    split: Annotated[Path | None, typer.Option(help="A split file to compare with the data.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many processes read.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Read every file of a dataset and list what is wrong with it; an error makes the exit code 1.

    Some datasets have further options: brain_tumour --label-coding brats.

    Example: featherseg check lits data/lits
    """
    from rich.console import Console

    from pipelines import datasets
    from pipelines.datasets import checking
    from pipelines.datasets.options import options

    given = {"workers": workers, "split": split}
    look = datasets.get(dataset).check
    findings = look(folder, **given, **options(look, context.args, given))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        if findings:
            Console().print(checking.table(findings))
        typer.echo(f"{folder}: {checking.summary(findings)}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


@app.command()
def download(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="The folder that gets the dataset's own.")] = Path("data"),
) -> None:
    """Download and unpack a dataset that anybody may have; of the others it says where they are.

    Example: featherseg download brain_tumour
    """
    from pipelines import download as downloading

    folder = downloading.download(dataset, out)
    config = f"--config_file bundles/{dataset}/train.json --dataset_dir {folder}"
    typer.echo(f"{dataset} is in {folder}\ncheck it: featherseg check {dataset} {folder}")
    typer.echo(f"train on it: python -m monai.bundle run training {config}")


@app.command()
def track(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run's folder, such as runs/lits/mine.")],
) -> None:
    """Send to MLflow what it missed of a run while its server could not be reached.

    Example: featherseg track runs/lits/mine
    """
    from pipelines import tracking

    if not tracking.send_record(folder):
        raise DataError(f"expected an MLflow server at {tracking.place()}, found none; try again later")
    typer.echo(f"{folder}: MLflow has all of it at {tracking.place()}")


@app.command()
def baseline(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run's folder, such as runs/lits/mine.")],
) -> None:
    """Score the best fixed band of HU or grey levels on the cases that a run held out, beside its network.

    Example: featherseg baseline runs/lits/mine
    """
    from pipelines import scoring, threshold

    found = threshold.beside_run(folder)
    scoring.write_cases(found.rows, folder / "evaluation" / "baseline.csv")
    band = f"fixed threshold, {found.band[0]} to {found.band[1]} {found.levels.unit}"
    for title, scored in (("network", found.network), (band, found.rows)):
        typer.echo(f"\n{title}\n{scoring.format_table(scored, scoring.summarize(scored), found.unit)}")


@app.command()
def calipers(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A dce_us dataset; without it, the phantom.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("calipers.png"),
) -> None:
    """Find burned-in calipers: in your images, as a picture, or in the phantom, where they are known.

    Example: featherseg calipers data/dce_us --out calipers.png
    """
    from rich.console import Console

    from pipelines import caliper_study

    if folder is None:
        Console().print(caliper_study.table(caliper_study.measure()))
        return
    found = caliper_study.study(folder, out)
    typer.echo(f"calipers found in {found.found} of {found.images} images")
    for number, file in enumerate(found.shown, start=1):
        typer.echo(f"{number:3} {file}")
    if found.shown:
        typer.echo(f"picture: {out}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sweep(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sweep file, such as those of the bundles.")],
    jobs: Annotated[int, typer.Option(min=1, help="How many runs at a time on each device.")] = 1,
    devices: Annotated[str, typer.Option(help="GPUs, such as 0,1; by default all.")] = "",
    ray: Annotated[str, typer.Option(help="Address of a Ray cluster; `local` starts one here.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and run none.")] = False,
) -> None:
    """Train and evaluate a grid of networks, overlays, seeds and folds; what MLflow has finished is skipped.

    Options of the bundles may follow, as --dataset_dir. It can be stopped, or killed, and started again.

    Example: featherseg sweep bundles/dce_us/sweeps/busi_cpu.yaml --jobs 2 --dataset_dir data/dce_us
    """
    from pipelines import sweep as sweeping
    from pipelines import sweep_plan

    planned = sweep_plan.read(file, sweep_plan.options(context.args))
    if dry_run:
        typer.echo("\n".join(job.in_words() for job in planned))
        return
    if ray:
        from pipelines import sweep_ray

        outcomes = sweep_ray.sweep(planned, ray, jobs)
    else:
        used = devices.split(",") if devices else sweeping.all_devices()
        outcomes = sweeping.sweep(planned, sweeping.slots(used, jobs))
    for state in (sweeping.FAILED, sweeping.ELSEWHERE):
        for outcome in outcomes:
            if outcome.state == state:
                typer.echo(f"{outcome.job.name}: {state}: {outcome.words}", err=True)
    counts = [f"{sum(one.state == state for one in outcomes)} {state}" for state in sweeping.STATES]
    typer.echo(f"{len(planned)} runs: {', '.join(counts)}")
    typer.echo(f"compare them: featherseg compare {planned[0].experiment}")
    if any(outcome.state in (sweeping.FAILED, sweeping.ELSEWHERE) for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def compare(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="A bundle, or its runs' --experiment.")
    ],
    out: Annotated[Path | None, typer.Option(help="By default runs/EXPERIMENT/comparison.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Scores on the network's grid.")] = False,
    across: Annotated[
        list[str] | None,
        typer.Option(help="Join runs that differ in code, data, split, recipe or device; repeatable."),
    ] = None,
    latency: Annotated[bool, typer.Option(help="Measure how long each network takes.")] = True,
    falling: Annotated[
        list[str] | None,
        typer.Option(help="Three networks or more whose Dice should fall in this order; repeatable."),
    ] = None,
) -> None:
    """Compare the networks of an experiment: table, paired tests, Pareto plot, curves, cases.

    Example: featherseg compare dce_us
    """
    from pipelines.allocator import uncollected

    options = {"grid": grid, "across": across or (), "latency": latency, "falling": falling or ()}
    with uncollected():  # the imports, too
        from pipelines import compare_report

        compare_report.make(experiment, out, **options)


@app.command()
def promote(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id in MLflow, its name, or its folder.")],
    alias: Annotated[str, typer.Option(help="What the version is called from now on.")] = "champion",
    experiment: Annotated[
        str | None, typer.Option(help="Where the name is looked for; everywhere by default.")
    ] = None,
) -> None:
    """Register a run's model in MLflow's Model Registry under its bundle's name, with its figures.

    Example: featherseg promote runs/dce_us/mine
    """
    from pipelines import registry

    done = registry.promote(run, alias, experiment)
    uri = f"models:/{done.name}@{done.alias}"
    what = "new" if done.made else "registered before; the alias is on it now"
    typer.echo(f"{uri} is version {done.version} ({what})\nload it: --checkpoint {uri}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def explain(
    context: typer.Context,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Its name, such as lits or dce_us.")],
    image: Annotated[
        Path | None,
        typer.Argument(metavar="[IMAGE_OR_DIR]", help="As inference takes it; by default the bundle's data."),
    ] = None,
    case: Annotated[str | None, typer.Option(help="One of the cases there; by default the first.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Weights, as inference takes them.")] = None,
    run_name: Annotated[str | None, typer.Option(help="The run whose weights are taken.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="vanilla, smooth or gradcam; repeatable; by default all.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="For Grad-CAM; by default the network's bottom.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The PNG to write; by default runs/BUNDLE/explain/CASE_explain.png.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--slice", help="Of a volume; by default the one with most lesion.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise behind the smoothed gradient.")] = 0,
) -> None:
    """Draw what a prediction hangs on: gradients to each channel of the image, and Grad-CAM.

    Options of the bundle's inference may follow, as --device cpu.

    Example: featherseg explain dce_us data/dce_us/images/Patient001_img1.png
    """
    from rich.console import Console

    from pipelines import explain as explaining
    from pipelines.sweep_plan import options

    words = context.args
    if image is not None and str(image).startswith("--"):  # no image, but an option of the bundle's
        image, words = None, [str(image), *words]
    given = {"checkpoint": checkpoint, "run_name": run_name}
    given = {key: value for key, value in given.items() if value is not None} | options(words)
    done = explaining.explain(bundle, image, case, out, method or (), layer, number, seed, given)
    if shares := explaining.table(done.record):
        Console().print(shares)
    typer.echo(f"explained: the mean logit over {done.record['mean logit over']}\npicture: {done.picture}")


@app.command()
def package(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Its name, such as lits or dce_us.")],
    checkpoint: Annotated[str | None, typer.Option(help="The weights, as inference takes them.")] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Take the best of its runs in MLflow, by what chose their epochs.")
    ] = None,
    torchscript: Annotated[bool, typer.Option("--torchscript", help="Write models/model.ts too.")] = False,
    out: Annotated[Path, typer.Option(help="The folder for the bundle and its zip.")] = Path("dist"),
) -> None:
    """Write a bundle with its weights as the model zoo has them, to run anywhere without this project.

    By default the weights are those of the newest finished run, else those that ship with the bundle.

    Example: featherseg package lits --checkpoint runs/lits/mine/model.pt
    """
    from pipelines.package import package as make

    done = make(bundle, checkpoint, experiment, torchscript, out)
    typer.echo(f"weights: {done.weights}\nbundle: {done.folder}\nzip: {done.archive}")
    config = done.folder / "configs" / "inference.json"
    typer.echo(f"try it: python -m monai.bundle run inferring --config_file {config} --dataset_dir IN")


@app.command()
def label(
    bundles: Annotated[str, typer.Option(help="Names of bundles, separated by commas.")] = "",
    studies: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="The images to annotate; labels go to DIR/labels. Or the address of a PACS's DICOMweb "
            "services; labels go there as DICOM SEG.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
    app_dir: Annotated[
        Path | None, typer.Option(help="The project's folder; by default runs/label/ and the name of DIR.")
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="BUNDLE=FILE", help="Weights to serve from now on; repeatable."),
    ] = None,
    expose: Annotated[
        bool, typer.Option("--expose", help="Allow a --host that others reach, without a password.")
    ] = False,
    doubts: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Studies without a label that each version of a model looks at in the background, for the "
            "strategy uncertain_BUNDLE; 0 for none.",
        ),
    ] = 100,
    rollback: Annotated[
        str, typer.Option(metavar="BUNDLE", help="Serve the model again that was served before, and end.")
    ] = "",
) -> None:
    """Let annotators correct what bundles segment, in 3D Slicer, and the bundles learn from it (MONAI Label).

    A newly trained model is served only where it is better on labels held out. The first start installs
    MONAI Label into .venv-label, which `make install-label` does beforehand.

    Example: featherseg label --bundles lits,dce_us --studies data/studies
    """
    from pipelines.label import serve

    if rollback:
        typer.echo(serve.roll_back(rollback, app_dir, studies))
        return
    if not bundles or studies is None:
        raise DataError("expected --bundles and --studies, found one of them missing; see --help")
    given = dict(one.partition("=")[::2] for one in checkpoint or ())
    raise typer.Exit(serve.serve(bundles.split(","), studies, app_dir, host, port, expose, given, doubts))


@app.command()
def networks(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the networks: paper, parameters, multiply-accumulates at the paper's image size, arguments.

    Example: featherseg networks
    """
    from rich.console import Console
    from rich.table import Table

    from networks import summarize

    summaries = summarize()
    if as_json:
        typer.echo(json.dumps([asdict(summary) for summary in summaries], indent=1))
        return
    table = Table(box=None)
    for heading in ("network", "paper", "parameters", "image", "GMAC", "arguments"):
        table.add_column(heading, justify="right" if heading in ("parameters", "GMAC") else "left")
    for summary in summaries:
        size = "x".join(map(str, summary.image_size))
        arguments = ", ".join(f"{name} {value}" for name, value in summary.arguments.items())
        cost = (f"{summary.parameters:,}", size, f"{summary.gmacs:,.2f}")
        table.add_row(summary.title, summary.paper, *cost, arguments)
    console = Console(width=max(Console().width, 130), highlight=False)
    console.print(table)
    console.print("\nIn a bundle: --network_def#_target_ networks.LighterUNet --network_def#group_size 16")


def main() -> None:
    """Run the command; a `DataError` becomes one line on standard error and exit code 2."""
    try:
        app()
    except DataError as error:
        print(f"featherseg: {user_message(error)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
