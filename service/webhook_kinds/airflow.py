"""Airflow's dagRun: an event starts one run of a DAG, however often it is told."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import httpx2
from pydantic import Field, SecretStr, model_validator

from service.outbound import AddressNotAllowed, Guard
from service.webhook_kinds.contract import Answer, Credentials, Owed, Post, PostingKind, encoded


class Login(Credentials):
    """A bearer token, or a user and password."""

    token: SecretStr | None = Field(None, max_length=4000)
    username: str | None = Field(None, max_length=256)
    password: SecretStr | None = Field(None, max_length=1000)

    @model_validator(mode="after")
    def _one_of_both(self) -> "Login":
        if (self.token is None) == (self.username is None or self.password is None):
            raise ValueError("give either a token, or a username and a password")
        return self


class AirflowRun(PostingKind):
    """A run of an Airflow DAG whose ``dag_run_id`` is the call's id; that it exists already means that it was told."""

    name: ClassVar[str] = "airflow"
    source: ClassVar[str] = "Airflow 3 REST API, POST /api/v2/dags/{dag_id}/dagRuns"
    credentials: ClassVar[type[Credentials]] = Login
    example: ClassVar[Mapping[str, Any]] = {
        "url": "https://airflow.example.com/api/v2/dags/retrain/dagRuns",
        "events": ["retraining.requested"],
        "credentials": {"token": "eyJ…"},
    }

    def check(self, guard: Guard, url: str, options: Mapping[str, Any]) -> None:
        """Refuse what is not the address of a DAG's runs."""
        super().check(guard, url, options)
        if not httpx2.URL(url).path.endswith("/dagRuns"):
            raise AddressNotAllowed("the address of a DAG's runs ends with /dags/{dag_id}/dagRuns")

    def request(self, owed: Owed) -> Post:
        """Return the run that is asked for: ``conf`` holds the event and its data, ``logical_date`` is nobody's."""
        if token := owed.credentials.get("token"):
            authorization = f"Bearer {token}"
        else:
            pair = f"{owed.credentials['username']}:{owed.credentials['password']}"
            authorization = f"Basic {b64encode(pair.encode()).decode()}"
        body = {"dag_run_id": f"plumbline_{owed.uid}", "logical_date": None, "conf": {"id": owed.uid, **owed.document}}
        return Post(url=owed.url, body=encoded(body), headers={"authorization": authorization})

    def judged(self, answer: Answer) -> Answer:
        """Take 409 for an arrival: the run of this id was made by an attempt before."""
        if answer.status == 409:
            return replace(answer, status=200, text=f"409, so the run exists already: {answer.text}"[:200])
        return answer
