"""DICOM files: what is read of their pixels, and that nothing else leaves them."""

import numpy as np
import pytest

from anomalib_memd.data.reading import ImageReadError, frame_names, read_array, read_image

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.pixels import convert_color_space  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402

ENDOSCOPIC, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.77.1.1", "1.2.840.10008.5.1.4.1.1.7"
PATIENT = "DOE^JANE"
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def write(path, pixels, colours="RGB", kind=ENDOSCOPIC, frames=None, **attributes):
    """A file with the name of a patient in it."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    file.PatientName, file.PatientID, file.SOPClassUID = PATIENT, "4711", kind
    bits = pixels.dtype.itemsize * 8
    colour = colours in {"RGB", "YBR_FULL"}
    shape = pixels.shape[1:] if frames else pixels.shape
    file.Rows, file.Columns = shape[:2]
    file.SamplesPerPixel = 3 if colour else 1
    if colour:
        file.PlanarConfiguration = 0
    if frames:
        file.NumberOfFrames = frames
    file.PhotometricInterpretation = colours
    file.BitsAllocated = file.BitsStored = bits
    file.HighBit, file.PixelRepresentation = bits - 1, 0
    for name, value in attributes.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("kind", [ENDOSCOPIC, SECONDARY_CAPTURE])
@pytest.mark.parametrize("suffix", [".dcm", ".DCM"])
def test_colours_are_read_as_they_are(tmp_path, kind, suffix):
    path = write(tmp_path / f"frame{suffix}", PIXELS, kind=kind)
    np.testing.assert_array_equal(read_array(path), PIXELS)
    np.testing.assert_allclose(read_image(path).permute(1, 2, 0).numpy(), PIXELS / 255, atol=1e-6)


def test_luminance_and_chrominance_become_rgb(tmp_path):
    path = write(tmp_path / "frame.dcm", convert_color_space(PIXELS, "RGB", "YBR_FULL"), "YBR_FULL")
    assert np.abs(read_array(path).astype(int) - PIXELS).max() <= 3


def test_each_frame_is_an_image(tmp_path):
    frames = np.stack([PIXELS, PIXELS[::-1], 255 - PIXELS])
    path = write(tmp_path / "clip.dcm", frames, frames=3)
    assert frame_names(path) == [f"{path}#{n}" for n in range(3)]
    for name, expected in zip(frame_names(path), frames, strict=True):
        np.testing.assert_array_equal(read_array(name), expected)
    with pytest.raises(ImageReadError, match=r"holds 3 frames; name one as clip.dcm#0 to clip.dcm#2"):
        read_array(path)
    with pytest.raises(ImageReadError, match="has no frame 3; it holds 3"):
        read_array(f"{path}#3")


def test_a_file_of_one_frame_has_its_own_name(tmp_path):
    path = write(tmp_path / "frame.dcm", PIXELS)
    assert frame_names(path) == [str(path)]
    assert frame_names(tmp_path / "other.png") == [str(tmp_path / "other.png")]


def test_sixteen_bits_become_eight_and_the_first_monochrome_is_inverted(tmp_path):
    grey = np.array([[0, 257, 65535]], dtype=np.uint16)
    assert read_array(write(tmp_path / "a.dcm", grey, "MONOCHROME2"))[0, :, 0].tolist() == [0, 1, 255]
    assert read_array(write(tmp_path / "b.dcm", grey, "MONOCHROME1"))[0, :, 0].tolist() == [255, 254, 0]


def test_a_palette_gives_its_colours(tmp_path):
    colours = {}
    for number, name in enumerate(("Red", "Green", "Blue")):
        colours[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        colours[f"{name}PaletteColorLookupTableData"] = bytes([10 + number, 200 + number])
    path = write(tmp_path / "a.dcm", np.array([[0, 1]], dtype=np.uint8), "PALETTE COLOR", **colours)
    assert read_array(path).tolist() == [[[10, 11, 12], [200, 201, 202]]]


def test_attributes_that_break_the_rules_reach_no_warning(tmp_path, recwarn, caplog):
    path = write(tmp_path / "frame.dcm", PIXELS, PatientBirthDate="19000101", StudyDate="20000101")
    path.write_bytes(path.read_bytes().replace(b"19000101", b"JANE DOE"))
    np.testing.assert_array_equal(read_array(path), PIXELS)
    assert "DOE" not in caplog.text
    assert not [warning for warning in recwarn if "DOE" in str(warning.message)]


@pytest.mark.parametrize("spoil", [lambda b: b[:300], lambda b: b[:-20], lambda _: b"no file", lambda _: b""])
def test_a_damaged_file_is_named_and_its_patient_is_not(tmp_path, spoil):
    path = write(tmp_path / "frame.dcm", PIXELS)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ImageReadError, match=r"frame\.dcm") as error:
        read_array(path)
    assert PATIENT not in str(error.value)
    assert error.value.__cause__ is None or error.value.__cause__.__cause__ is None


def test_data_of_the_patient_in_the_pixels_is_refused(tmp_path):
    path = write(tmp_path / "frame.dcm", PIXELS, BurnedInAnnotation="YES")
    with pytest.raises(ImageReadError, match="written into its pixels"):
        read_array(path)


def test_without_pydicom_the_command_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "frame.dcm", PIXELS)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ImageReadError, match=r"pip install 'anomalib-memd\[dicom\]'"):
        read_array(path)
