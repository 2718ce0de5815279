"""A receiver of retraining requests: verifies the call, fetches the rows, searches for a better model, reports back.

Run it beside the service:

    PLUMBLINE_URL=http://127.0.0.1:8000 PLUMBLINE_KEY=plk_... WEBHOOK_SECRET=whsec_... python receiver.py

It answers each call at once and works in a thread, one request after the other. What it has seen it remembers in its
folder by `webhook-id`, so that a call that comes twice trains once.
"""

import io
import json
import logging
import os
import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.model_selection import RandomizedSearchCV, TimeSeriesSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from standardwebhooks import Webhook, WebhookVerificationError

FEATURE = "features."
LONGEST_BODY = 64 * 1024
HELD_OUT = 0.25
"""The newest part of production's rows, which no model is fitted on: the candidate is compared on it."""
SEARCH = {
    "model__learning_rate": [0.03, 0.1, 0.3],
    "model__max_leaf_nodes": [7, 15, 31],
    "model__min_samples_leaf": [10, 20, 40],
    "model__l2_regularization": [0.0, 0.1, 1.0],
}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}

log = logging.getLogger("retrain-example")


@dataclass
class Trainer:
    """What is needed to retrain: the service and a key with the scopes `ingest` and `configure`, a folder, a budget."""

    url: str
    key: str
    folder: Path
    tries: int = 8
    requests: "queue.Queue[dict[str, Any]]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.api = httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=120)

    def is_new(self, uid: str) -> bool:
        """Return whether a call has not been seen before, and remember it."""
        seen = self.folder / "seen"
        seen.mkdir(exist_ok=True)
        try:
            (seen / uid).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def work(self) -> None:
        """Retrain what is asked for, one after the other."""
        while True:
            request = self.requests.get()
            try:
                version = self.retrain(request)
            except Exception as error:
                log.exception("retraining failed")
                self.report(request, "failed", detail=f"{type(error).__name__}: {error}"[:1000])
            else:
                log.info("version %s is trained", version)

    def report(self, request: dict[str, Any], state: str, **more: Any) -> None:
        """Tell the service how far it is; the link in the request lets in."""
        httpx2.post(request["callback_url"], json={"state": state, **more}, timeout=120).raise_for_status()

    def retrain(self, request: dict[str, Any]) -> str:
        """Fetch the rows, search, register version and baseline, post what it predicts, report; return the version."""
        self.report(request, "running")
        manifest, rows = self.fetch(request["training_data_url"])
        rows = rows.sort_values("timestamp", kind="stable").reset_index(drop=True)
        production = rows[rows["source"] == "production"]
        cut = production["timestamp"].iloc[int(len(production) * (1 - HELD_OUT))]
        fitted_on = rows[rows["timestamp"] < cut]
        held_out = production[production["timestamp"] >= cut]
        features = [name for name in rows.columns if name.startswith(FEATURE)]
        search = self.search(fitted_on, features, manifest["task"])
        model = search.best_estimator_
        version = f"{request['version']}-r{request['attempt']}-{request['retraining'][:8]}"
        skops.io.dump(model, self.folder / f"{version}.skops")
        path = f"/v1/models/{request['model']}"
        body = {"version": version, "metadata": {"retraining": request["retraining"], **search.best_params_}}
        self.post(f"{path}/versions", json=body)
        baseline = told(fitted_on, features, model, manifest["positive_class"])
        roles = {"name": version, "version": version, "ordered": "true"}
        self.post(f"{path}/baselines", params=roles, content=parquet(baseline), headers=PARQUET)
        shadow = told(held_out, features, model, manifest["positive_class"]).assign(version=version)
        self.post(f"{path}/predictions", content=parquet(shadow), headers=PARQUET)
        detail = f"{len(search.cv_results_['params'])} settings were tried on {len(fitted_on)} rows"
        self.report(request, "succeeded", version=version, detail=detail, trained_until=cut.isoformat())
        return version

    def fetch(self, link: str) -> tuple[dict[str, Any], pd.DataFrame]:
        """Return the manifest and the rows of a link."""
        manifest = httpx2.get(link, headers={"Accept": "application/json"}, timeout=300)
        manifest.raise_for_status()
        answer = httpx2.get(link, timeout=300)
        answer.raise_for_status()
        return manifest.json(), pd.read_parquet(io.BytesIO(answer.content))

    def search(self, rows: pd.DataFrame, features: list[str], task: str) -> RandomizedSearchCV:
        """Return a search that has been run, on folds in order of time."""
        texts = [name for name in features if not pd.api.types.is_numeric_dtype(rows[name])]
        encode = ColumnTransformer(
            [("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts)], remainder="passthrough"
        )
        regression = task == "regression"
        learner = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
        search = RandomizedSearchCV(
            Pipeline([("encode", encode), ("model", learner(random_state=0))]),
            SEARCH,
            n_iter=self.tries,
            cv=TimeSeriesSplit(3),
            scoring="neg_mean_absolute_error" if regression else "neg_log_loss",
            random_state=0,
        )
        truth = rows["ground_truth"].astype(float) if regression else rows["ground_truth"].astype(str)
        return search.fit(rows[features], truth)

    def post(self, path: str, **what: Any) -> httpx2.Response:
        """Post to the service; what it refuses is an error with its sentence."""
        answer = self.api.post(path, **what)
        if answer.status_code >= 400:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:500]}")
        return answer


def told(rows: pd.DataFrame, features: list[str], model: Pipeline, positive: str | None) -> pd.DataFrame:
    """Return rows with what a model says of them, in the columns in which the service takes records."""
    shown = rows[["prediction_id", "timestamp", *features, "ground_truth"]].copy()
    shown["prediction"] = np.asarray(model.predict(rows[features])).astype(str)
    if positive is not None:
        shown["score"] = model.predict_proba(rows[features])[:, list(model.classes_).index(positive)]
    return shown.dropna(subset=["prediction_id"])


def parquet(rows: pd.DataFrame) -> bytes:
    """Return rows as a Parquet file."""
    return rows.to_parquet(index=False)


def serve(trainer: Trainer, secret: str, port: int) -> ThreadingHTTPServer:
    """Return a server that takes calls; it is not running yet."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(min(length, LONGEST_BODY))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                Webhook(secret).verify(body.decode(), headers)
            except (WebhookVerificationError, ValueError):
                self.answer(401)
                return
            event = json.loads(body)
            if event["type"] == "retraining.requested" and trainer.is_new(headers["webhook-id"]):
                trainer.requests.put(event["data"])
            self.answer(204)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            log.info(format, *args)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    """Serve until the process is ended."""
    logging.basicConfig(level=logging.INFO)
    trainer = Trainer(
        url=os.environ["PLUMBLINE_URL"],
        key=os.environ["PLUMBLINE_KEY"],
        folder=Path(os.environ.get("FOLDER", "models")),
        tries=int(os.environ.get("TRIES", "8")),
    )
    threading.Thread(target=trainer.work, daemon=True).start()
    server = serve(trainer, os.environ["WEBHOOK_SECRET"], int(os.environ.get("PORT", "8080")))
    log.info("waiting at http://127.0.0.1:%d/", server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
