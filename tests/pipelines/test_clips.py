from __future__ import annotations

import io
import os
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate

from pipelines.clips import read_clip
from pipelines.errors import DataError

PATIENT = ("Müller^Jürgen", "HOSPITAL-4711")


def pictures(count=6, size=(48, 64)):
    """RGB frames (count, H, W, 3), each with a colour ramp and a level of its own."""
    y, x = np.mgrid[: size[0], : size[1]]
    ramp = np.stack([2 * x, 3 * y, x + y], axis=-1)
    return np.stack([np.clip(ramp + 12 * n, 0, 255) for n in range(count)]).astype(np.uint8)


def ybr(rgb):
    """ITU-R BT.601 at full range, as JPEG and DICOM's YBR_FULL have it."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return np.clip(np.rint(rgb @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def write_dicom(path, pixels, photometric="RGB", syntax=uid.ExplicitVRLittleEndian, count=None, **elements):
    """An ultrasound clip; `pixels` is an array (frames, H, W[, 3]) or the bytes of Pixel Data."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = PATIENT
    dataset.Modality = "US"
    dataset.PhotometricInterpretation = photometric
    dataset.SamplesPerPixel = 1 if photometric in ("PALETTE COLOR", "MONOCHROME2") else 3
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = 48, 64
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.NumberOfFrames = len(pixels) if count is None else count
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.PixelData = pixels if isinstance(pixels, bytes) else pixels.tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def jpeg(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95, subsampling=2)
    return stream.getvalue()


def write_video(path, images, codec="mpeg4", rate=25, pts=None, time_base=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 4_000_000
        if time_base:
            stream.codec_context.time_base = time_base
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if pts:
                frame.pts, frame.time_base = pts[number], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_folder(folder, images, names):
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return folder


def times(clip, **kwargs):
    return [frame.time for frame in read_clip(clip, **kwargs)]


def assert_shows(clip, expected, tolerance=0.0):
    """Frames are those expected, up to a mean difference in grey levels, and in memory one at a time."""
    found = [frame.image for frame in read_clip(clip)]
    assert len(found) == len(expected)
    for image, truth in zip(found, expected, strict=True):
        assert image.dtype == np.uint8 and image.shape == truth.shape
        assert np.abs(image.astype(int) - truth).mean() <= tolerance


class TestDicom:
    def test_rgb_with_any_ending(self, tmp_path):
        images = pictures()
        for name in ("clip.dcm", "IM_0001", "1.2.840.113"):
            assert_shows(write_dicom(tmp_path / name, images, FrameTime=40), images)

    def test_colour_by_plane(self, tmp_path):
        images = pictures()
        planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        assert_shows(write_dicom(tmp_path / "a", planes, FrameTime=40, PlanarConfiguration=1), images)

    def test_ybr_full(self, tmp_path):
        images = pictures()
        assert_shows(write_dicom(tmp_path / "a", ybr(images), "YBR_FULL", FrameTime=40), images, 1)

    def test_ybr_full_422(self, tmp_path):
        images = pictures()
        full = ybr(images)
        # Two pixels share their chrominance: Y1 Y2 B R.
        pairs = np.stack(
            [full[..., ::2, 0], full[..., 1::2, 0], full[..., ::2, 1], full[..., ::2, 2]], axis=-1
        )
        file = write_dicom(tmp_path / "a", pairs.tobytes(), "YBR_FULL_422", count=6, FrameTime=40)
        assert_shows(file, images, 4)

    @pytest.mark.parametrize("bits", [8, 16])
    def test_palette(self, tmp_path, bits):
        stored = pictures()[..., 0]
        table = np.stack([np.arange(256), np.arange(256) // 2, 255 - np.arange(256)], axis=-1)
        entries = table.astype(np.uint8) if bits == 8 else (table * 257).astype("<u2")
        palette = {
            f"{name}PaletteColorLookupTable{part}": value
            for channel, name in enumerate(("Red", "Green", "Blue"))
            for part, value in (("Descriptor", [256, 0, bits]), ("Data", entries[:, channel].tobytes()))
        }
        file = write_dicom(tmp_path / "a", stored, "PALETTE COLOR", FrameTime=40, **palette)
        assert_shows(file, table[stored].astype(np.uint8))

    def test_grey(self, tmp_path):
        stored = pictures()[..., 1]
        file = write_dicom(tmp_path / "a", stored, "MONOCHROME2", FrameTime=40)
        assert_shows(file, np.repeat(stored[..., None], 3, axis=-1))

    def test_jpeg(self, tmp_path):
        images = pictures()
        frames = encapsulate([jpeg(image) for image in images])
        file = write_dicom(tmp_path / "a", frames, "YBR_FULL_422", uid.JPEGBaseline8Bit, 6, FrameTime=40)
        assert_shows(file, images, 4)

    @pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless])
    def test_lossless_compression(self, tmp_path, syntax):
        images = pictures()
        file = write_dicom(tmp_path / "a", images, FrameTime=40)
        dataset = dcmread(file)
        dataset.compress(syntax)
        dataset.save_as(file)
        assert_shows(file, images)

    @pytest.mark.parametrize(
        ("timing", "expected"),
        [
            ({"FrameTime": 40}, [0, 0.04, 0.08, 0.12, 0.16, 0.2]),
            ({"FrameTimeVector": [0, 100, 100, 200, 50, 50]}, [0, 0.1, 0.2, 0.4, 0.45, 0.5]),
            ({"FrameTimeVector": [100, 100, 100, 200, 50, 50]}, [0, 0.1, 0.2, 0.4, 0.45, 0.5]),
            ({"RecommendedDisplayFrameRate": 10}, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
            ({"CineRate": 20}, [0, 0.05, 0.1, 0.15, 0.2, 0.25]),
            ({"FrameTime": 40, "CineRate": 100}, [0, 0.04, 0.08, 0.12, 0.16, 0.2]),
            ({"FrameTimeVector": [0, 1000, 1000], "FrameTime": 500}, [0, 0.5, 1, 1.5, 2, 2.5]),  # too short
            ({"FrameTime": 0, "CineRate": 2}, [0, 0.5, 1, 1.5, 2, 2.5]),
            (
                {
                    "FrameTime": 500,
                    "FrameTimeVector": [0, 1, 1, 1, 1, 1],
                    "FrameIncrementPointer": 0x00181063,
                },
                [0, 0.5, 1, 1.5, 2, 2.5],
            ),
            (
                {
                    "FrameTime": 500,
                    "FrameTimeVector": [0, 1, 1, 1, 1, 1],
                    "FrameIncrementPointer": 0x00181065,
                },
                [0, 0.001, 0.002, 0.003, 0.004, 0.005],
            ),
        ],
    )
    def test_times_are_the_files_own(self, tmp_path, timing, expected):
        assert times(write_dicom(tmp_path / "a", pictures(), **timing)) == pytest.approx(expected)

    def test_without_timing_a_rate_is_asked_for_and_taken(self, tmp_path):
        file = write_dicom(tmp_path / "a", pictures())
        with pytest.raises(
            DataError, match=r"times of its frames \(FrameTimeVector, .* give the frames per second"
        ):
            read_clip(file)
        assert times(file, frames_per_second=4) == [0, 0.25, 0.5, 0.75, 1, 1.25]
        timed = write_dicom(tmp_path / "b", pictures(), FrameTime=1000)
        assert times(timed, frames_per_second=4) == [0, 1, 2, 3, 4, 5]  # the file knows better

    def test_a_still_image_is_a_clip_of_one_frame(self, tmp_path):
        images = pictures(1)
        file = write_dicom(tmp_path / "a", images, NumberOfFrames=None)
        assert_shows(file, images)
        assert times(file) == [0]

    def test_memory_does_not_grow_with_the_clip(self, tmp_path):
        frames = np.zeros((400, 192, 256, 3), np.uint8)  # 59 MB
        file = write_dicom(tmp_path / "a", frames, Rows=192, Columns=256, FrameTime=40)
        del frames
        tracemalloc.start()
        try:
            count = sum(1 for _ in read_clip(file))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert count == 400
        assert peak < 5e6

    @pytest.mark.parametrize(
        ("elements", "message"),
        [
            ({"Modality": "CT"}, r"ultrasound \(modality US\), found CT"),
            ({"Modality": None}, r"ultrasound \(modality US\), found None"),
            (
                {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11},
                "8 bits a channel .* found 12 bits of RGB",
            ),
            ({"PhotometricInterpretation": "HSV"}, "found 8 bits of HSV"),
            ({"PhotometricInterpretation": None}, "without pixels"),
            ({"NumberOfFrames": 0}, "expected frames, found none"),
            ({"NumberOfFrames": 9}, "expected 9 frames, found [0-6] that|expected frames, found none"),
        ],
    )
    def test_what_is_wrong_is_named_without_the_patient(self, tmp_path, elements, message):
        file = write_dicom(tmp_path / "a.dcm", pictures(), FrameTime=40, **elements)
        with pytest.raises(DataError, match=f"a.dcm: .*({message})") as error:
            list(read_clip(file))
        assert not any(part in str(error.value) for part in PATIENT)

    @pytest.mark.parametrize("compressed", [False, True])
    @pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
    def test_a_truncated_file(self, tmp_path, share, compressed):
        images = pictures()
        if compressed:
            frames = encapsulate([jpeg(image) for image in images])
            file = write_dicom(tmp_path / "a", frames, "YBR_FULL_422", uid.JPEGBaseline8Bit, 6, FrameTime=40)
        else:
            file = write_dicom(tmp_path / "a", images, FrameTime=40)
        os.truncate(file, int(file.stat().st_size * share))
        with pytest.raises(DataError, match="expected") as error:
            list(read_clip(file))
        assert not any(part in str(error.value) for part in PATIENT)

    def test_a_syntax_that_nobody_decodes_is_named(self, tmp_path):
        frames = encapsulate([bytes(100)])
        file = write_dicom(tmp_path / "a", frames, "YBR_FULL_422", uid.MPEG4HP41, 1, FrameTime=40)
        with pytest.raises(DataError, match=r"found MPEG-4 AVC.*; export the clip"):
            read_clip(file)

    def test_an_object_without_pixels(self, tmp_path):
        file = write_dicom(tmp_path / "a", pictures(), FrameTime=40)
        dataset = dcmread(file)
        del dataset.PixelData
        dataset.save_as(file)
        with pytest.raises(DataError, match="found none"):
            list(read_clip(file))


class TestVideo:
    @pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("B.AVI", "mjpeg")])
    def test_frames_and_times(self, tmp_path, name, codec):
        images = pictures(12, (96, 128)) // 3 + 40
        file = write_video(tmp_path / name, images, codec, rate=8)
        assert_shows(file, images, 6)
        assert times(file) == pytest.approx([n / 8 for n in range(12)], abs=1e-6)

    def test_times_of_a_variable_rate(self, tmp_path):
        pts = [500, 540, 700, 1700, 1800]
        images = pictures(5, (96, 128))
        file = write_video(tmp_path / "a.mp4", images, rate=25, pts=pts, time_base=Fraction(1, 1000))
        assert times(file) == pytest.approx([0, 0.04, 0.2, 1.2, 1.3], abs=1e-3)

    @pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
    def test_a_truncated_file(self, tmp_path, name, share):
        noise = np.random.default_rng(0).integers(0, 255, (60, 96, 128, 3), np.uint8)
        file = write_video(tmp_path / name, noise)
        assert len(times(file)) == 60
        os.truncate(file, int(file.stat().st_size * share))
        with pytest.raises(DataError, match=rf"{name}: expected"):
            list(read_clip(file))

    def test_a_file_with_sound_only(self, tmp_path):
        file = tmp_path / "a.mp4"
        with av.open(str(file), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        with pytest.raises(DataError, match="expected a video, found none"):
            list(read_clip(file))


class TestFolder:
    NAMES = ("ceus-1.png", "ceus-2.PNG", "ceus-9.jpg", "ceus-10.jpeg", "ceus-15达峰.png", "ceus-100.png")

    def test_natural_order_and_names_that_are_not_ascii(self, tmp_path):
        images = pictures()
        folder = write_folder(tmp_path / "frames", images, self.NAMES)
        (folder / "notes.txt").write_text("no frame")
        (folder / ".ceus-3.png").write_bytes(b"hidden")
        assert_shows(folder, images, 4)

    def test_one_frame_a_second_or_as_given(self, tmp_path):
        folder = write_folder(tmp_path / "frames", pictures(), self.NAMES)
        assert times(folder) == [0, 1, 2, 3, 4, 5]
        assert times(folder, frames_per_second=10) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])

    def test_files_in_a_given_order(self, tmp_path):
        images = pictures()
        folder = write_folder(tmp_path / "frames", images, self.NAMES)
        files = [str(folder / self.NAMES[n]) for n in (4, 0)]
        assert_shows(files, images[[4, 0]])

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
    def test_other_modes_become_rgb(self, tmp_path, mode):
        image = Image.fromarray(np.uint8([[[0, 0, 0], [255, 255, 255]]] * 2))
        image.convert(mode).save(tmp_path / "a.png")
        assert next(read_clip(tmp_path)).image.tolist() == np.asarray(image).tolist()

    def test_what_is_wrong_is_named(self, tmp_path):
        with pytest.raises(DataError, match="expected PNG or JPEG frames, found none"):
            list(read_clip(tmp_path))
        folder = write_folder(
            tmp_path / "b", [*pictures(2), pictures(1, (48, 65))[0]], ["1.png", "2.png", "3.png"]
        )
        with pytest.raises(DataError, match=r"3.png: .* 64x48 \(width x height\), found 65x48"):
            list(read_clip(folder))
        os.truncate(folder / "2.png", 60)
        with pytest.raises(DataError, match=r"2.png: expected a whole picture"):
            list(read_clip(folder))
        Image.fromarray(np.zeros((24, 32), np.uint16)).save(folder / "1.png")
        with pytest.raises(DataError, match=r"1.png: expected 8 bits"):
            list(read_clip(folder))


@pytest.mark.parametrize(
    ("name", "content"), [("a.gif", b"GIF89a"), ("a.png", b"\x89PNG"), ("a.dcm", b"\0" * 500), ("a", b"")]
)
def test_another_kind_of_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: expected a DICOM, AVI or MP4 file or a folder of PNG"):
        read_clip(tmp_path / name)


def test_no_file_and_no_rate(tmp_path):
    with pytest.raises(DataError, match="found nothing there"):
        read_clip(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="more than 0 frames per second, found 0"):
        read_clip(tmp_path, frames_per_second=0)
