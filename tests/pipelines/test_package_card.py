from pathlib import Path

from pipelines.package_card import card, travelling
from pipelines.package_weights import Weights

CARD = """# lits: a heading

About; see [train.json](train.json) and [the site](https://example.org/a).

**Data.** Read as downloaded ([note](../../docs/note.md)).

**Network.** `Big`.

**Results.** None.

| a | b |
|---|---|

More results.

**Weights.** Shipped, [here](models/model.safetensors).

**Not for** patients.
"""
METADATA = {
    "name": "A name",
    "description": "What it is.",
    "intended_use": "Research.",
    "trained_on": {"dataset_fingerprint": "0123", "seed": 7},
    "eval_metrics": {"test_dice": 0.8},
}


def test_sections_that_do_not_hold_stay_and_links_lead_to_where_things_are():
    assert travelling(CARD, shipped=False) == (
        "About; see [train.json](../configs/train.json) and [the site](https://example.org/a).\n\n"
        "**Data.** Read as downloaded (note).\n\n**Not for** patients.\n"
    )
    assert "**Weights.** Shipped, here.\n\n**Not for**" in travelling(CARD, shipped=True)


def test_the_card_tells_what_is_true_of_the_weights():
    found = Weights(Path("/home/someone/model.pt"), {}, name="run mine")
    text = card("lits", "featherseg_lits", METADATA, found, "mm", CARD)
    assert text.startswith("# A name\n\nWhat it is.\n")
    assert "| weights | run mine |\n| dataset fingerprint | 0123 |\n| seed | 7 |" in text
    assert "| figure (distances in mm) | |\n|---|---|\n| test_dice | 0.8 |" in text
    assert "lits/configs/inference.json" in text
    assert "/home" not in text
    assert "No figures" not in text


def test_where_there_are_no_figures_it_says_so():
    text = card("lits", "p", {**METADATA, "eval_metrics": {}}, Weights(Path("m"), {}), "mm", "")
    assert "No figures: these weights had not been evaluated" in text
    assert "## The bundle" not in text
