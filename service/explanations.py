"""Explanations: a version's artifact taken in, its predictions attributed in the worker, and what was told kept."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpcore2
import httpx2
import numpy as np
import pyarrow as pa
import zstandard
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from explainers.importance import importances
from monitors.kinds.attribution_drift import ndcg
from service import baselines
from service.clock import Clock
from service.confinement import Answer
from service.database import Database
from service.lake import Lake
from service.outbound import Guard
from service.problems import NotFound, Problem, Unprocessable
from service.profiles import Profiles
from service.settings import Settings
from service.tables import ArtifactRow, BaselineRow, ExplanationRow, FeatureRow, ModelRow, VersionRow
from service.vault import Vault
from service.words import Span, format_time, new_id, text_of
from service.worker import Limits, Reply, Worker, WorkFailed

KEPT_IN_CACHE = timedelta(days=7)
"""How long an explanation that was not asked to be kept is answered again without work."""
REASONS = 4
SHOWN = 80
"""How much of a value a reason repeats."""
GLOBAL_ROWS = 1_000
DRIFT_ROWS = 2_000
"""Rows of the window and of the baseline that are explained for attribution drift where none were posted."""
ANSWER_BYTES = 32 * 2**20
CALL_SECONDS = 30.0
NUMERIC = ("numeric", "boolean")
_CALL_ERRORS = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpx2.HTTPError,
    OSError,
)
LIBRARIES = ("shap", "woodelf-explainer", "xgboost", "lightgbm", "catboost", "scikit-learn", "onnxruntime", "numpy")


class ArtifactMissing(Problem):
    """A version has neither an artifact nor posted attributions."""

    status, title = 409, "The version has no model to explain with"


class EndpointFailed(Problem):
    """The endpoint that serves the model did not answer a prediction."""

    status, title = 422, "The model's endpoint did not answer"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a caller wants explained, and how."""

    model_id: int
    version_id: int
    records: Sequence[Mapping[str, Any]]
    """In the shape of predictions: ``prediction_id``, ``features``, ``prediction``, ``score``, ``attributions``."""
    method: str = "auto"
    output: str | None = None
    class_: str | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    keep: bool = False


@dataclass(frozen=True)
class Material:
    """What a version is explained with: its artifact, and the rows that say what is usual."""

    model: ModelRow
    version: VersionRow
    artifact: ArtifactRow | None
    baseline: BaselineRow | None
    types: Mapping[str, str]

    @property
    def identity(self) -> list[Any]:
        """What the numbers depend on beside the rows and the method."""
        artifact, baseline = self.artifact, self.baseline
        return [
            self.version.id,
            None if artifact is None else artifact.digest,
            None if baseline is None else baseline.uid,
            self.model.classes,
            self.model.positive_class,
            self.model.favourable_outcome,
            self.texts,
        ]

    @property
    def texts(self) -> list[str]:
        """The features of running text."""
        return sorted(name for name, kind in self.types.items() if kind == "text")


class Explanations:
    """Explains a version's predictions; every number comes from the worker or was posted."""

    def __init__(
        self,
        database: Database,
        lake: Lake,
        clock: Clock,
        settings: Settings,
        profiles: Profiles,
        worker: Worker,
        vault: Vault,
        guard: Guard | None = None,
    ) -> None:
        self.database, self.lake, self.clock, self.settings = database, lake, clock, settings
        self.profiles, self.worker, self.vault = profiles, worker, vault
        self.guard = guard or Guard(settings)
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._baselines: OrderedDict[tuple[str, str], pa.Table] = OrderedDict()

    # --- artifacts ----------------------------------------------------------------------------------------------------

    def adopt(
        self,
        model_id: int,
        version_id: int,
        *,
        data: bytes | None,
        endpoint: Mapping[str, Any] | None,
        manifest: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> ArtifactRow:
        """Load a model in the worker and make it the version's; what cannot be loaded is refused with a sentence.

        ``headers`` let in at the endpoint; they are kept encrypted.
        """
        with self.database.reading() as session:
            material = self.material(session, model_id, version_id)
        told = _manifest(material, manifest, endpoint is not None)
        document = {"manifest": told, "protocol": None if endpoint is None else endpoint["protocol"]}
        if endpoint is not None:
            self.guard.check(str(endpoint["url"]))
        files = {} if data is None else {"artifact": data}
        about, _ = self.worker.call("explanations.look", document, files=files, limits=self._limits(60))
        missing = [name for name in about["inputs"] if name not in material.types]
        if missing and material.types:
            known = ", ".join(map(repr, list(material.types)[:10]))
            lacking = ", ".join(map(repr, missing[:5]))
            raise Unprocessable(
                f"the model takes {lacking}, which the version's schema does not have (it has {known}); say in the "
                "manifest's `groups`, `encodings` or `columns` how they are logged"
            )
        head = hashlib.sha256(data if data is not None else json.dumps(endpoint, sort_keys=True).encode())
        head.update(json.dumps(told, sort_keys=True).encode())
        path = None
        if data is not None:
            path = f"{material.model.uid}/artifact/{new_id()}.model"
            content = data
            self.lake.write(path, lambda file: file.write_bytes(content))
        with self.database.writing() as session:
            row = ArtifactRow(
                model_id=model_id,
                version_id=version_id,
                kind=about["format"],
                digest=head.hexdigest(),
                path=path,
                size=0 if data is None else len(data),
                endpoint=None if endpoint is None else dict(endpoint),
                credentials=self.vault.lock(json.dumps(dict(headers))) if headers else None,
                manifest=told,
                about=dict(about),
                created_at=self.clock.now(),
            )
            session.add(row)
            session.flush()
            return row

    def material(self, session: Session, model_id: int, version_id: int) -> Material:
        """Return what a version is explained with."""
        model, row = session.get_one(ModelRow, model_id), session.get_one(VersionRow, version_id)
        features = session.scalars(
            select(FeatureRow)
            .where(FeatureRow.version_id == version_id, FeatureRow.store != "drop")
            .order_by(FeatureRow.position, FeatureRow.id)
        )
        return Material(
            model=model,
            version=row,
            artifact=artifact_of(session, version_id),
            baseline=baselines.active(session, row, self.clock.now()),
            types={feature.name: feature.type for feature in features},
        )

    # --- local --------------------------------------------------------------------------------------------------------

    def explain(self, asked: Asked, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Return the explanation of some records, made now or told before; see `api.md`, Explanations."""
        with self.database.reading() as session:
            material = self.material(session, asked.model_id, asked.version_id)
        posted = [record.get("attributions") or {} for record in asked.records]
        told = asked.method == "posted" or (asked.method == "auto" and all(posted))
        how = [asked.method, asked.output, asked.class_, asked.seed, dict(asked.options)]
        fingerprint = _fingerprint("local", material.identity, how, list(asked.records))
        known = self._known(asked.model_id, fingerprint, asked.keep)
        if known is not None:
            return known
        if told:
            if not all(posted):
                raise Unprocessable("not every one of these predictions carries attributions")
            items = [_posted(material, record) for record in asked.records]
        else:
            items = self._computed(material, asked, check)
        document = {
            "kind": "local",
            "model": material.model.name,
            "version": material.version.name,
            "favourable_outcome": material.model.favourable_outcome,
            "software": _software(),
            "items": items,
        }
        return self._keep(material, "local", fingerprint, document, keep=asked.keep)

    def _computed(self, material: Material, asked: Asked, check: Callable[[], None]) -> list[dict[str, Any]]:
        for record in asked.records:
            _check_names(record.get("features") or {}, material)
        rows = rows_of(asked.records, material.types)
        document, tables, background = self._attributed(
            material, rows, asked.method, asked.output, asked.class_, asked.seed, asked.options, check
        )
        players, told = document["players"], tables["told"].to_pylist()
        errors = tables["errors"].to_pylist() if "errors" in tables else [None] * len(told)
        tokens = document["tokens"]
        items = []
        for place, (record, values, error, about) in enumerate(
            zip(asked.records, tables["attributions"].to_pylist(), errors, told, strict=True)
        ):
            attributions = {name: values[name] for name in players}
            class_ = about["class"] if document["classes"] else None
            items.append(
                {
                    "prediction_id": record.get("prediction_id"),
                    "version": material.version.name,
                    "artifact_digest": _artifact(material).digest,
                    "method": document["method"],
                    "why": document["why"],
                    "exact": document["exact"],
                    "error": error,
                    "output": document["output"],
                    "class": class_,
                    "base_value": about["base_value"],
                    "attributions": attributions,
                    "prediction": about["prediction"],
                    "logged": {name: record[name] for name in ("prediction", "score") if record.get(name) is not None},
                    "background": background,
                    "note": document["note"] or None,
                    "seed": asked.seed,
                    "features": record.get("features") or {},
                    **({"tokens": tokens[place]} if tokens else {}),
                    **_reasons(material.model, attributions, class_, record.get("features") or {}),
                }
            )
        return items

    def _attributed(
        self,
        material: Material,
        rows: pa.Table,
        method: str,
        output: str | None,
        class_: str | None,
        seed: int,
        options: Mapping[str, Any],
        check: Callable[[], None],
        *,
        whole: bool = False,
    ) -> tuple[Mapping[str, Any], Mapping[str, pa.Table], dict[str, Any] | None]:
        background = self._background(material)
        document = {
            "method": method,
            "output": output,
            "class": class_ if class_ is not None else material.model.positive_class,
            "seed": seed,
            "options": dict(options),
            "whole": whole,
        }
        if class_ is None and material.model.task == "multiclass":
            document["class"] = None
        found, tables = self._work("explanations.attribute", material, document, rows, background, check)
        about: dict[str, Any] | None = {"note": found["against"]} if found["against"] else None
        if material.baseline is not None and found["background_rows"]:
            about = {
                "baseline": material.baseline.name,
                "baseline_id": material.baseline.uid,
                "rows": found["background_rows"],
            }
        return found, tables, about

    def _background(self, material: Material) -> pa.Table:
        sample = None if material.baseline is None else baselines.sample(self.lake, material.baseline)
        if sample is None:
            return pa.table({name: pa.array([], pa.float64()) for name in material.types})
        return features_of(sample, material.types)

    def _work(
        self,
        task: str,
        material: Material,
        document: Mapping[str, Any],
        rows: pa.Table,
        background: pa.Table | None,
        check: Callable[[], None] = lambda: None,
    ) -> Answer:
        artifact = _artifact(material)
        told = {**document, "manifest": artifact.manifest}
        files: dict[str, bytes] = {}
        reply: Reply | None = None
        if artifact.endpoint is not None:
            told["manifest"] = {"texts": material.texts, **artifact.manifest}
            told["protocol"] = artifact.endpoint["protocol"]
            secret = {} if artifact.credentials is None else json.loads(self.vault.unlock(artifact.credentials))
            reply = self._caller(str(artifact.endpoint["url"]), secret)
        else:
            files = {"artifact": self._file(artifact)}
        tables = {"rows": rows} | ({} if background is None else {"background": background})
        limits = self._limits(self.settings.explanation_seconds)
        if reply is None:
            return self.worker.call(task, told, tables=tables, files=files, limits=limits, check=check)
        return self.worker.call(task, told, tables=tables, limits=limits, reply=reply, check=check)

    def _limits(self, seconds: float) -> Limits:
        return Limits(seconds=seconds, resident_bytes=self.settings.worker_bytes)

    def _file(self, artifact: ArtifactRow) -> bytes:
        """Return an artifact's bytes; the last two are remembered."""
        if artifact.path is None:
            raise ArtifactMissing("the version's artifact has no file")
        held = self._files.get(artifact.path)
        if held is None:
            try:
                held = self.lake.path(artifact.path).read_bytes()
            except OSError:
                raise ArtifactMissing("the version's artifact is gone from the lake; upload it again") from None
            self._files[artifact.path] = held
            while len(self._files) > 2:
                self._files.popitem(last=False)
        return held

    def _caller(self, url: str, secret: Mapping[str, str]) -> Reply:
        """Return what asks the endpoint through the guard on the worker's behalf, with headers that stay here."""

        def reply(document: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Answer:
            body = tables["body"]["body"][0].as_py()
            accept = "application/json, text/csv;q=0.5"
            headers = {**secret, "content-type": str(document["content_type"]), "accept": accept}
            try:
                with (
                    self.guard.client(CALL_SECONDS) as client,
                    client.stream("POST", url, content=body, headers=headers) as answer,
                ):
                    received = b""
                    for chunk in answer.iter_bytes():
                        received += chunk
                        if len(received) > ANSWER_BYTES:
                            raise EndpointFailed(f"the endpoint answered more than {ANSWER_BYTES // 2**20} MiB")
                    if answer.status_code != 200:
                        said = _without(received.decode(errors="replace"), secret)[:200]
                        raise EndpointFailed(f"the endpoint answered {answer.status_code}: {said}")
            except _CALL_ERRORS as error:
                raise EndpointFailed(f"the endpoint could not be asked: {error}") from None
            return {}, {"body": pa.table({"body": [received]})}

        return reply

    # --- global -------------------------------------------------------------------------------------------------------

    def importance(
        self,
        model_id: int,
        version_id: int,
        span: Span,
        *,
        rows: int = GLOBAL_ROWS,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Return the mean absolute attribution of each input over a window's row sample, beside the baseline's."""
        with self.database.reading() as session:
            material = self.material(session, model_id, version_id)
            table = self.profiles.sample(session, material.version, span, rows=rows)
        if table is None:
            raise NotFound("no record of the version fell into this span")
        digest = hashlib.sha256(np.ascontiguousarray(table["id_hash"].to_numpy()).tobytes()).hexdigest()
        times = [format_time(span.start), format_time(span.end)]
        fingerprint = _fingerprint("global", material.identity, [*times, rows], [digest])
        known = self._known(model_id, fingerprint, False)
        if known is not None:
            return known
        now, how = self.attributions(material, table, check)
        before: pa.Table | None
        reason = ""
        try:
            before = self.baseline_attributions(material, rows, check)
        except Problem as problem:
            before, reason = None, problem.detail
        found = importances(_matrix(now), seed=0)
        names = now.schema.names
        then = None
        if before is not None:
            then = importances(_matrix(before.select([n for n in names if n in before.schema.names])), seed=0)
            if [name for name in names if name in before.schema.names] != names:
                then, reason = None, "the baseline's attributions are of other inputs"
        features = []
        for place, name in enumerate(names):
            entry: dict[str, Any] = {
                "feature": name,
                "importance": found.mean[place],
                "interval": [found.low[place], found.high[place]],
                "mean": found.signed[place],
            }
            if then is not None:
                entry["baseline_importance"] = then.mean[place]
                entry["baseline_interval"] = [then.low[place], then.high[place]]
            features.append(entry)
        features.sort(key=lambda each: (-each["importance"], each["feature"]))
        document = {
            "kind": "global",
            "model": material.model.name,
            "version": material.version.name,
            "window": {"from": times[0], "to": times[1]},
            "rows": now.num_rows,
            "baseline": None if material.baseline is None or then is None else material.baseline.name,
            "baseline_rows": None if before is None else before.num_rows,
            "ndcg": None if then is None else ndcg(np.array(then.mean), np.array(found.mean)),
            "reason": reason or None,
            "artifact_digest": None if material.artifact is None else material.artifact.digest,
            **how,
            "seed": 0,
            "software": _software(),
            "features": features,
        }
        return self._keep(material, "global", fingerprint, document, keep=False)

    def attributions(
        self, material: Material, table: pa.Table, check: Callable[[], None] = lambda: None
    ) -> tuple[pa.Table, dict[str, Any]]:
        """Return the attributions of sampled rows by input: those posted, else computed; and how they came about."""
        names = [name for name in table.schema.names if name.startswith("attributions.")]
        held = [name for name in names if table[name].null_count < table.num_rows]
        if held:
            posted = pa.table({name.removeprefix("attributions."): table[name] for name in held})
            missing = np.any([posted[name].is_null().to_numpy() for name in posted.schema.names], axis=0)
            return posted.filter(pa.array(~missing)), {"method": "posted", "output": None, "exact": None}
        rows = features_of(table, material.types)
        found, tables, _ = self._attributed(material, rows, "auto", None, None, 0, {}, check, whole=True)
        told = {name: found[name] for name in ("method", "why", "output", "exact")}
        return tables["attributions"], told

    def baseline_attributions(
        self, material: Material, rows: int, check: Callable[[], None] = lambda: None
    ) -> pa.Table:
        """Return the attributions of the baseline's first sampled rows; computed once per baseline and artifact."""
        baseline = material.baseline
        if baseline is None:
            raise ArtifactMissing("the version has no baseline")
        sample = baselines.sample(self.lake, baseline)
        if sample is None:
            raise ArtifactMissing(f"baseline {baseline.name!r} keeps no rows")
        key = (f"{baseline.uid} {rows}", "" if material.artifact is None else material.artifact.digest)
        held = self._baselines.get(key)
        if held is None:
            chosen = sample
            if sample.num_rows > rows:
                places = np.random.default_rng(int(baseline.uid, 16)).choice(sample.num_rows, rows, replace=False)
                chosen = sample.take(pa.array(np.sort(places)))
            held, how = self.attributions(material, chosen, check)
            self._tell_baseline(material, held, how)
            self._baselines[key] = held
            while len(self._baselines) > 16:
                self._baselines.popitem(last=False)
        return held

    def _tell_baseline(self, material: Material, found: pa.Table, how: Mapping[str, Any]) -> None:
        """Keep how much each input counts in a baseline's rows, for whoever asks later what the model heeds."""
        if material.artifact is None or how["method"] == "posted" or not found.num_rows:
            return
        fingerprint = _fingerprint("baseline", material.identity, [found.num_rows])
        if self._known(material.model.id, fingerprint, False) is not None:
            return
        told = importances(_matrix(found), seed=0)
        document = {
            "kind": "global",
            "model": material.model.name,
            "version": material.version.name,
            "window": None,
            "rows": found.num_rows,
            "baseline": None if material.baseline is None else material.baseline.name,
            "artifact_digest": material.artifact.digest,
            **how,
            "seed": 0,
            "software": _software(),
            "features": [
                {
                    "feature": name,
                    "importance": told.mean[place],
                    "interval": [told.low[place], told.high[place]],
                    "mean": told.signed[place],
                }
                for place, name in enumerate(found.schema.names)
            ],
        }
        self._keep(material, "global", fingerprint, document, keep=True)

    # --- partial dependence -------------------------------------------------------------------------------------------

    def dependence(
        self,
        model_id: int,
        version_id: int,
        *,
        feature: str,
        output: str | None,
        points: int,
        rows: int,
        each: bool,
        seed: int = 0,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Return what is predicted as a feature moves over its grid, over the baseline's rows."""
        with self.database.reading() as session:
            material = self.material(session, model_id, version_id)
        how = [feature, output, points, rows, each, seed]
        fingerprint = _fingerprint("dependence", material.identity, how, [])
        known = self._known(model_id, fingerprint, False)
        if known is not None:
            return known
        sample = self._background(material)
        if not sample.num_rows:
            raise ArtifactMissing("the version has no baseline with rows, over which the feature could be moved")
        document = {
            "feature": feature, "output": output, "points": points, "rows": rows, "each": each, "seed": seed,
        }  # fmt: skip
        found, _ = self._work("explanations.depend", material, document, sample, None, check)
        told = {
            "kind": "dependence",
            "model": material.model.name,
            "version": material.version.name,
            "artifact_digest": _artifact(material).digest,
            "baseline": None if material.baseline is None else material.baseline.name,
            "seed": seed,
            **found,
        }
        return self._keep(material, "dependence", fingerprint, told, keep=False)

    # --- predictions --------------------------------------------------------------------------------------------------

    def predicted(
        self, material: Material, rows: pa.Table, check: Callable[[], None] = lambda: None
    ) -> dict[str, pa.Array]:
        """Return what a version's artifact or endpoint predicts of the lake's rows, in the lake's columns.

        ``prediction``, and ``score`` or ``scores.<class>``; a chance reaches a class as the model's threshold says.
        """
        model = material.model
        if model.task == "multilabel":
            raise Unprocessable("a model of several labels is not asked for predictions; post them")
        found, tables = self._work("explanations.predict", material, {}, features_of(rows, material.types), None, check)
        told = {name: np.asarray(tables["predictions"][name].to_numpy()) for name in tables["predictions"].column_names}
        if model.task == "regression":
            (values,) = told.values()
            return {"prediction": pa.array(values, from_pandas=True)}
        names = list(told)
        if len(names) > 1:
            places = np.argmax(np.column_stack(list(told.values())), axis=1)
            scores = {f"scores.{name}": pa.array(told[name], from_pandas=True) for name in names}
            return {"prediction": pa.array([names[place] for place in places]), **scores}
        (named,), other = names, str(found["other"])
        positive = model.positive_class or max(named, other)
        chance = told[named] if named == positive else 1 - told[named]
        negative = other if named == positive else named
        said = np.where(chance >= model.decision_threshold, positive, negative)
        return {"prediction": pa.array(said.tolist()), "score": pa.array(chance, from_pandas=True)}

    # --- for monitors -------------------------------------------------------------------------------------------------

    def with_attributions(
        self, model_id: int, version_id: int, baseline: BaselineRow, table: pa.Table | None, *, window: bool
    ) -> pa.Table | None:
        """Return sampled rows with an ``attributions.<input>`` column each, posted or computed; None of no rows."""
        if table is None or any(
            name.startswith("attributions.") and table[name].null_count < table.num_rows for name in table.schema.names
        ):
            return table
        with self.database.reading() as session:
            known = self.material(session, model_id, version_id)
        material = Material(known.model, known.version, known.artifact, baseline, known.types)
        if material.artifact is None:
            return table
        found = (
            self.attributions(material, table.slice(0, DRIFT_ROWS))[0]
            if window
            else self.baseline_attributions(material, DRIFT_ROWS)
        )
        return found.rename_columns([f"attributions.{name}" for name in found.schema.names])

    # --- what was told ------------------------------------------------------------------------------------------------

    def read(self, session: Session, uid: str) -> tuple[ExplanationRow, dict[str, Any]] | None:
        """Return an explanation by its id."""
        row = session.scalar(select(ExplanationRow).where(ExplanationRow.uid == uid))
        return None if row is None else (row, _opened(row))

    def _known(self, model_id: int, fingerprint: str, keep: bool) -> dict[str, Any] | None:
        chosen = (ExplanationRow.model_id == model_id, ExplanationRow.fingerprint == fingerprint)
        with self.database.reading() as session:
            row = session.scalar(select(ExplanationRow).where(*chosen))
            if row is None:
                return None
            told, kept = _opened(row), row.kept
        if keep and not kept:
            with self.database.writing() as session:
                again = session.scalar(select(ExplanationRow).where(*chosen))
                if again is None:
                    return None
                again.kept = True
            told["kept"] = True
        return told | {"cached": True}

    def _keep(
        self, material: Material, kind: str, fingerprint: str, document: Mapping[str, Any], *, keep: bool
    ) -> dict[str, Any]:
        now = self.clock.now()
        uid = new_id()
        told = {"id": uid, "created_at": format_time(now), **document}
        packed = zstandard.ZstdCompressor(level=6).compress(json.dumps(told, allow_nan=False).encode())
        try:
            with self.database.writing() as session:
                session.execute(
                    delete(ExplanationRow).where(
                        ExplanationRow.kept.is_(False), ExplanationRow.created_at < now - KEPT_IN_CACHE
                    )
                )
                session.add(
                    ExplanationRow(
                        uid=uid,
                        model_id=material.model.id,
                        version_id=material.version.id,
                        kind=kind,
                        fingerprint=fingerprint,
                        kept=keep,
                        document=packed,
                        created_at=now,
                    )
                )
        except IntegrityError:  # the same was asked twice at once; the first answer is the one that is kept
            known = self._known(material.model.id, fingerprint, keep)
            if known is not None:
                return known
            raise
        return told | {"kept": keep, "cached": False}


def artifact_of(session: Session, version_id: int) -> ArtifactRow | None:
    """Return the newest artifact of a version."""
    return session.scalar(
        select(ArtifactRow).where(ArtifactRow.version_id == version_id).order_by(ArtifactRow.id.desc()).limit(1)
    )


def last_global(session: Session, version_id: int) -> dict[str, Any]:
    """Return the importance of inputs that was asked for last with a version's present artifact, {} where none was."""
    artifact = artifact_of(session, version_id)
    if artifact is None:
        return {}
    row = session.scalar(
        select(ExplanationRow)
        .where(
            ExplanationRow.version_id == version_id,
            ExplanationRow.kind == "global",
            ExplanationRow.created_at >= artifact.created_at,
        )
        .order_by(ExplanationRow.id.desc())
        .limit(1)
    )
    told = {} if row is None else _opened(row)
    return told if told.get("artifact_digest") == artifact.digest else {}


def last_importances(session: Session, version_id: int) -> dict[str, float]:
    """Return the importances by input that were explained last with a version's present artifact, {} where none were.

    Those of the baseline's rows where they were told too: what a model heeds before anything moved.
    """
    told = last_global(session, version_id).get("features", ())
    return {one["feature"]: one.get("baseline_importance", one["importance"]) for one in told}


def _artifact(material: Material) -> ArtifactRow:
    if material.artifact is None:
        raise ArtifactMissing(
            f"version {material.version.name!r} has no artifact: put one at /v1/models/{material.model.name}/versions/"
            f"{material.version.name}/artifact, or post attributions with the predictions"
        )
    return material.artifact


def _check_names(features: Mapping[str, Any], material: Material) -> None:
    """Refuse a record that has a feature nobody knows in place of one that the model takes: a misspelt name.

    A feature that is simply absent is missing, as it is in a prediction.
    """
    inputs = _artifact(material).about["inputs"]
    absent = [name for name in inputs if name not in features]
    unknown = [name for name in features if name not in material.types and name not in inputs]
    if absent and unknown:
        raise Unprocessable(
            f"the record has {', '.join(map(repr, unknown[:5]))}, which the version's schema does not have, and lacks "
            f"{', '.join(map(repr, absent[:5]))}; columns are matched by name"
        )


def _without(text: str, secret: Mapping[str, str]) -> str:
    """Return what an endpoint said, without the secrets that it may have said back."""
    for value in secret.values():
        text = text.replace(value.removeprefix("Bearer "), "…")
    return text


def _opened(row: ExplanationRow) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(zstandard.ZstdDecompressor().decompress(row.document))
    return told | {"kept": row.kept}


def _manifest(material: Material, given: Mapping[str, Any], served: bool) -> dict[str, Any]:
    """Return the manifest with what the model and the version's schema say already."""
    told = {name: value for name, value in given.items() if value}
    model = material.model
    told.setdefault("task", model.task)
    if model.classes:
        told.setdefault("classes", [text_of(each) for each in model.classes])
    if model.positive_class:
        told.setdefault("positive_class", model.positive_class)
    if served and material.types:
        told.setdefault("columns", list(material.types))
    return told


def rows_of(records: Sequence[Mapping[str, Any]], types: Mapping[str, str]) -> pa.Table:
    """Return the features of records as a table, typed by the schema, else by what they are."""
    names = list(types) or list(dict.fromkeys(name for record in records for name in record.get("features") or {}))
    columns: dict[str, pa.Array] = {}
    for name in names:
        values = [(record.get("features") or {}).get(name) for record in records]
        if name not in types and not any(name in (record.get("features") or {}) for record in records):
            continue
        if _is_numeric(name, values, types):
            columns[name] = pa.array([_number(value) for value in values], pa.float64())
        else:
            columns[name] = pa.array([None if value is None else text_of(value) for value in values], pa.string())
    return pa.table(columns)


def _is_numeric(name: str, values: Sequence[Any], types: Mapping[str, str]) -> bool:
    if name in types:
        return types[name] in NUMERIC
    return all(value is None or isinstance(value, int | float) for value in values)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def features_of(table: pa.Table, types: Mapping[str, str]) -> pa.Table:
    """Return the features of the lake's rows under their own names, numbers as float64 and all else as text."""
    columns = {}
    for name in table.schema.names:
        if not name.startswith("features."):
            continue
        column, plain = table[name], name.removeprefix("features.")
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        numeric = types[plain] in NUMERIC if plain in types else not pa.types.is_string(column.type)
        if numeric and pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if numeric and not pa.types.is_string(column.type):
            columns[plain] = column.cast(pa.float64())
        elif pa.types.is_boolean(column.type) or pa.types.is_floating(column.type):
            columns[plain] = pa.array([None if v is None else text_of(v) for v in column.to_pylist()], pa.string())
        else:
            columns[plain] = column.cast(pa.string())
    return pa.table(columns)


def _matrix(table: pa.Table) -> np.ndarray:
    return np.column_stack([np.asarray(table[name].to_numpy(), dtype=np.float64) for name in table.schema.names])


def _posted(material: Material, record: Mapping[str, Any]) -> dict[str, Any]:
    attributions = dict(record["attributions"])
    class_ = record.get("prediction") if material.model.task != "regression" else None
    return {
        "prediction_id": record.get("prediction_id"),
        "version": material.version.name,
        "artifact_digest": None,
        "method": "posted",
        "why": "they came with the prediction and are told as they came",
        "exact": None,
        "error": None,
        "output": None,
        "class": class_,
        "base_value": None,
        "attributions": attributions,
        "prediction": record.get("score", record.get("prediction")),
        "logged": {name: record[name] for name in ("prediction", "score") if record.get(name) is not None},
        "background": None,
        "note": None,
        "seed": None,
        "features": record.get("features") or {},
        **_reasons(
            material.model,
            attributions,
            class_ if material.model.task == "multiclass" else material.model.positive_class,
            record.get("features") or {},
        ),
    }


def _reasons(
    model: ModelRow, attributions: Mapping[str, float], class_: str | None, features: Mapping[str, Any]
) -> dict[str, Any]:
    """Return up to four inputs that pushed most against the favourable outcome, strongest first."""
    favourable = model.favourable_outcome
    if favourable is None:
        note = "the model declares no favourable_outcome, so nothing counts as against it"
        return {"reasons": [], "reasons_note": note}
    if isinstance(favourable, Mapping):
        sign = -1.0 if "above" in favourable else 1.0
        words = f"an outcome {next(iter(favourable))} {next(iter(favourable.values()))}"
    else:
        sign = -1.0 if class_ is not None and text_of(favourable) == class_ else 1.0
        words = f"the outcome {text_of(favourable)}"
    against = sorted(
        ((name, value) for name, value in attributions.items() if value is not None and value * sign > 0),
        key=lambda pair: (-abs(pair[1]), pair[0]),
    )[:REASONS]
    return {
        "reasons": [
            {
                "feature": name,
                "value": features.get(name),
                "attribution": value,
                "sentence": f"{name} = {shown(features.get(name))} spoke against {words}",
            }
            for name, value in against
        ]
    }


def shown(value: Any) -> str:
    """Return a value as a reason and a page tell it: the beginning of a long one."""
    text = "missing" if value is None else text_of(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _fingerprint(kind: str, *parts: Any) -> str:
    return hashlib.sha256(json.dumps([kind, *parts], sort_keys=True, default=str).encode()).hexdigest()


def _software() -> dict[str, str]:
    """Return the versions that the numbers were made with."""
    found = {}
    for name in ("plumbline-server", *LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


__all__ = [
    "Asked",
    "Explanations",
    "Material",
    "WorkFailed",
    "artifact_of",
    "features_of",
    "last_global",
    "last_importances",
    "rows_of",
    "shown",
]
