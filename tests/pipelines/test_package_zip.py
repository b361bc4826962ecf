import io
import zipfile

from pipelines.package_zip import zipped

FILES = {"b/two.txt": b"2" * 1000, "a/one.txt": b"one"}


def test_the_order_of_files_and_the_time_do_not_show():
    assert zipped(FILES) == zipped(dict(reversed(FILES.items())))
    with zipfile.ZipFile(io.BytesIO(zipped(FILES))) as archive:
        assert archive.namelist() == ["a/one.txt", "b/two.txt"]
        assert archive.read("b/two.txt") == FILES["b/two.txt"]
        entry = archive.getinfo("a/one.txt")
        assert entry.date_time == (1980, 1, 1, 0, 0, 0)
        assert entry.external_attr >> 16 == 0o100644


def test_files_are_compressed_or_as_they_are():
    assert b"2" * 1000 not in zipped(FILES)
    assert b"2" * 1000 in zipped(FILES, compressed=False)
