"""ONNX graphs, run by ONNX Runtime."""

from typing import Any

import numpy as np
import pandas as pd

from explainers import links
from explainers.contract import Artifact, Family, Manifest, Model, Numbers, Refusal, Scale


class OnnxArtifact(Artifact):
    """A graph with one tensor of all columns, or one input per column, as skl2onnx and others write it."""

    name = "onnx"
    title = "ONNX"
    source = "ONNX, IR specification"

    def recognises(self, data: bytes) -> bool:
        """Return whether it begins as a ModelProto: field 1 (ir_version, up to 20), then a known field."""
        return (
            len(data) > 8
            and data[0] == 0x08
            and 1 <= data[1] <= 20
            and data[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
        )

    def load(self, data: bytes, manifest: Manifest) -> Model:
        """Load the graph; one that keeps tensors in other files is refused."""
        if b"\x0a\x08location\x12" in data:
            raise Refusal("the graph keeps tensors in other files, which are not read; save it in one file")
        try:
            import onnxruntime
        except ImportError:
            raise Refusal("ONNX Runtime is not installed here; install plumbline-server[onnx]") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base
            said = " ".join(str(error).split())[:200]
            raise Refusal(f"ONNX Runtime cannot read this file; it may be cut off or damaged: {said}") from None
        inputs = session.get_inputs()
        single = len(inputs) == 1 and (len(inputs[0].shape or ()) == 2 and inputs[0].shape[1] != 1)
        if single:
            width = inputs[0].shape[1]
            if not isinstance(width, int):
                if manifest.columns is None:
                    raise Refusal(
                        "the graph takes one tensor and names no columns; say them in the manifest, in the model's "
                        'order: {"columns": [...]}'
                    )
                width = len(manifest.columns)
            columns = links.columns(None, width, manifest)
        else:
            columns = links.columns([given.name for given in inputs], len(inputs), manifest)
        place, kind = _output(session)

        def feed(frame: pd.DataFrame) -> dict[str, Any]:
            if single:
                return {inputs[0].name: _tensor(frame.to_numpy(), inputs[0].type)}
            return {
                given.name: _tensor(frame[name].to_numpy(), given.type).reshape(-1, 1)
                for given, name in zip(inputs, columns, strict=True)
            }

        def run(frame: pd.DataFrame) -> Numbers:
            try:
                out = session.run([session.get_outputs()[place].name], feed(frame))[0]
            except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base
                said = " ".join(str(error).split())[-300:]
                raise Refusal(f"the graph cannot be run on {len(columns)} columns: {said}") from None
            if isinstance(out, list):  # a ZipMap: one dictionary a row
                out = np.array([list(row.values()) for row in out])
            return np.asarray(out, dtype=np.float64).reshape(len(frame), -1)

        width_out, named = _width(session, place, columns, run, inputs, single=single)
        classifier = kind == "classifier"

        def predict(frame: pd.DataFrame, scale: Scale) -> Numbers:
            out = run(frame)
            return out[:, 1:] if scale is Scale.PROBABILITY and out.shape[1] == 2 else out

        outputs, other, scales = links.outcome(
            classes=width_out if classifier and width_out > 2 else 0,
            binary=classifier and width_out <= 2,
            manifest=manifest,
            named=named,
        )
        if classifier:
            scales = (Scale.PROBABILITY,)
        return Model(
            family=Family.BLACK_BOX,
            columns=columns,
            outputs=outputs,
            other=other,
            scales=scales,
            predict=predict,
            single=True,
        )


def _tensor(values: Any, kind: str) -> Any:
    if kind == "tensor(string)":
        return np.array([["" if value is None else str(value) for value in np.atleast_1d(row)] for row in values])
    wanted = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
    if kind not in wanted:
        raise Refusal(f"the graph takes {kind}, which columns of a table are not")
    return np.asarray(values, dtype=wanted[kind])


def _output(session: Any) -> tuple[int, str]:
    """Return which output is explained: the probabilities of a classifier, else the first."""
    outs = session.get_outputs()
    for place, out in enumerate(outs):
        if len(outs) > 1 and ("prob" in out.name.lower() or out.type.startswith("seq(map")):
            return place, "classifier"
    if len(outs) > 1 and outs[0].type in ("tensor(int64)", "tensor(string)"):
        return 1, "classifier"
    return 0, "regressor"


def _width(
    session: Any, place: int, columns: tuple[str, ...], run: Any, inputs: Any, *, single: bool
) -> tuple[int, list[Any]]:
    """Return the number of outputs and, of a ZipMap, the classes: by predicting one row of zeros."""
    kinds = [inputs[0].type] * len(columns) if single else [given.type for given in inputs]
    row = {name: [""] if kind == "tensor(string)" else [0.0] for name, kind in zip(columns, kinds, strict=True)}
    frame = pd.DataFrame(row)
    if session.get_outputs()[place].type.startswith("seq(map"):
        feeds = {
            given.name: _tensor(frame.to_numpy() if single else frame[name].to_numpy(), given.type).reshape(1, -1)
            for given, name in zip(inputs, columns if not single else (columns[0],), strict=True)
        }
        out = session.run([session.get_outputs()[place].name], feeds)[0]
        return len(out[0]), list(out[0])
    return int(run(frame).shape[1]), []
