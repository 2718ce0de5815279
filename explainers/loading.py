"""Loads a model by its content: what is safe is loaded, anything that would run code is refused with a sentence."""

import io
import zipfile

from explainers import discovery
from explainers.contract import Artifact, Manifest, Model, Refusal

MOST_TREES = 100_000
MOST_COLUMNS = 100_000

CONVERT = (
    "save the model in its own format instead (XGBoost save_model('model.json'), LightGBM save_model('model.txt'), "
    "CatBoost save_model('model.cbm'), scikit-learn by skops.io.dump(model, 'model.skops') or as ONNX), or name the "
    "endpoint that serves it"
)


def format_of(data: bytes) -> Artifact:
    """Return the format of a model file, told by its content; raises Refusal of everything else."""
    if not data:
        raise Refusal("the file is empty")
    if said := _pickled(data):
        raise Refusal(
            f"this is {said}, which can run any code when it is opened, so it is never opened here; {CONVERT}"
        )
    for artifact in discovery.artifacts().values():
        if artifact.recognises(data):
            return artifact
    known = ", ".join(artifact.title for artifact in discovery.artifacts().values())
    raise Refusal(f"the content is none of the formats that are loaded here ({known}), or it is damaged; {CONVERT}")


def load(data: bytes, manifest: Manifest) -> Model:
    """Load a model file; raises Refusal with a sentence."""
    model = format_of(data).load(data, manifest)
    within(trees=model.trees, columns=len(model.columns))
    return model


def within(*, trees: int | None = None, columns: int | None = None) -> None:
    """Refuse a model that is larger than any that is explained here."""
    if trees is not None and trees > MOST_TREES:
        raise Refusal(f"the model has {trees:,} trees; up to {MOST_TREES:,} are explained here")
    if columns is not None and columns > MOST_COLUMNS:
        raise Refusal(f"the model has {columns:,} columns; up to {MOST_COLUMNS:,} are explained here")


def _pickled(data: bytes) -> str:
    """Return what kind of pickle some bytes are, "" where they are none."""
    head = data[:4096]
    for magic, squeezed in (
        (b"\x1f\x8b", "gzip"),
        *((bytes((0x78, level)), "zlib") for level in (0x01, 0x5E, 0x9C, 0xDA)),
    ):
        if data.startswith(magic):
            return f"a compressed file ({squeezed}), as joblib writes pickles"
    for magic in (b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18"):
        if data.startswith(magic):
            return "a compressed file, as joblib and others write pickles"
    if data[:1] == b"\x80" and data[1:2] in b"\x00\x01\x02\x03\x04\x05" and len(data) > 2:
        if b"cloudpickle" in data:
            return "a pickle (cloudpickle)"
        return "a pickle (joblib)" if b"joblib" in data or b"numpy_array_wrapper" in head.lower() else "a pickle"
    if data[:1] in b"(c]}" and data.rstrip()[-1:] == b"." and (b"\n" in head) and not head.lstrip().startswith(b"{"):
        return "a pickle (protocol 0)"
    if data.startswith(b"\x89HDF"):
        return "an HDF5 file as Keras writes it, with functions inside"
    if data.startswith(b"PK"):
        return _archived(data)
    if b"python_function" in head and b"loader_module" in head:
        return "an MLflow model of the flavour python_function"
    return ""


def _archived(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return ""
    if any(name.rsplit("/", 1)[-1] == "MLmodel" for name in names):
        return "an MLflow model (pyfunc), a folder whose code and pickles are run"
    if any(name.endswith((".pkl", ".pickle", ".joblib")) for name in names):
        return "an archive of pickles, as torch.save and MLflow write"
    return ""
