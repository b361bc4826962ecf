import shutil

from pipelines.datasets.fingerprint import files_of, fingerprint


def test_the_same_content_elsewhere_has_the_same_name(cases, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for case in cases:
        for key in ("image", "label"):
            shutil.copy(case[key], moved)
    there = [
        {**case, **{key: str(moved / case[key].rsplit("/", 1)[1]) for key in ("image", "label")}}
        for case in cases
    ]
    assert fingerprint(there) == fingerprint(cases) == fingerprint(cases[::-1])


def test_a_changed_an_added_and_a_missing_case_change_it(cases):
    before = fingerprint(cases)
    assert fingerprint(cases[:2]) != before
    with open(cases[0]["label"], "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert fingerprint(cases) != before


def test_every_file_of_an_image_counts(cases):
    files = [case["image"] for case in cases]
    one, two, three = (fingerprint([{"image": files[:count]}]) for count in (1, 2, 3))
    assert one == fingerprint([{"image": files[0]}])
    assert len({one, two, three}) == 3
    assert files_of({"image": files[:2], "label": files[2]}) == files


def test_every_mask_of_an_image_counts(cases):
    image, first, second = cases[0]["image"], cases[0]["label"], cases[1]["label"]
    names = [fingerprint([{"image": image, **label}]) for label in ({}, {"label": first})]
    assert fingerprint([{"image": image, "label": [first]}]) == names[1] != names[0]
    assert fingerprint([{"image": image, "label": [first, second]}]) not in names
