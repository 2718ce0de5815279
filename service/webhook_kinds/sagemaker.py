"""SageMaker's pipelines: an event starts one execution, however often it is told."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from typing import Any, ClassVar

import httpcore2
import httpx2
from pydantic import Field, SecretStr

from service.outbound import Guard, Refused
from service.problems import Fault, Unprocessable
from service.webhook_kinds.contract import (
    ANSWER_BYTES,
    SECONDS,
    Answer,
    Credentials,
    Options,
    Owed,
    WebhookKind,
)

LONGEST_VALUE = 1024


class AccessKey(Credentials):
    """A key that may call ``sagemaker:StartPipelineExecution``; roles of the host are not looked for."""

    access_key_id: str = Field(min_length=1, max_length=128)
    secret_access_key: SecretStr = Field(min_length=1, max_length=256)
    session_token: SecretStr | None = Field(None, max_length=4096)


class Pipeline(Options):
    """Which pipeline is started, and what it is told."""

    pipeline: str = Field(min_length=1, max_length=2048, description="Name or ARN of the pipeline.")
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="Region of the pipeline, e.g. eu-west-1.")
    parameters: dict[str, str] = Field(
        default_factory=dict,
        max_length=50,
        description="Parameters of the pipeline, each with the member of the event's data that it gets, e.g. "
        '{"TrainingDataUrl": "training_data_url"}.',
    )


class SageMakerPipeline(WebhookKind):
    """An execution of a SageMaker pipeline; ``ClientRequestToken`` is the call's id, so a repeat starts nothing."""

    name: ClassVar[str] = "sagemaker"
    source: ClassVar[str] = "Amazon SageMaker API 2017-07-24, StartPipelineExecution"
    options: ClassVar[type[Options]] = Pipeline
    credentials: ClassVar[type[Credentials]] = AccessKey
    example: ClassVar[Mapping[str, Any]] = {
        "url": "https://api.sagemaker.eu-west-1.amazonaws.com",
        "events": ["retraining.requested"],
        "options": {
            "pipeline": "retrain-credit-risk",
            "region": "eu-west-1",
            "parameters": {"TrainingDataUrl": "training_data_url", "CallbackUrl": "callback_url"},
        },
        "credentials": {"access_key_id": "AKIA…", "secret_access_key": "…"},
    }

    def check(self, guard: Guard, url: str, options: Mapping[str, Any]) -> None:
        """Refuse where boto3 is not installed."""
        super().check(guard, url, options)
        if find_spec("boto3") is None:
            detail = "the kind sagemaker needs boto3: install plumbline-server[sagemaker]"
            raise Unprocessable(detail, faults=[Fault("/kind", "not_installed", detail)])

    def deliver(self, owed: Owed, guard: Guard) -> Answer:
        """Start the execution; boto3 signs the request, the guard sends it."""
        import boto3
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        core = botocore.session.Session()
        core.register_component("data_loader", _descriptions())
        session = boto3.session.Session(
            botocore_session=core,
            aws_access_key_id=owed.credentials["access_key_id"],
            aws_secret_access_key=owed.credentials["secret_access_key"],
            aws_session_token=owed.credentials.get("session_token"),
            region_name=owed.options["region"],
        )
        config = Config(retries={"total_max_attempts": 1}, proxies={})
        client = session.client("sagemaker", endpoint_url=owed.url, config=config)
        client.meta.events.register("before-send.sagemaker", _Through(guard))
        try:
            started = client.start_pipeline_execution(
                PipelineName=owed.options["pipeline"],
                ClientRequestToken=owed.uid,
                PipelineExecutionDescription=owed.sentence[:3072],
                PipelineParameters=_parameters(owed),
            )
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            told = error.response.get("Error", {})
            return Answer(status=status, text=f"{told.get('Code')}: {told.get('Message')}"[:200])
        except Refused as error:
            return Answer(error=f"address_not_allowed: {error}")
        except (BotoCoreError, httpcore2.TimeoutException, httpcore2.NetworkError, httpx2.HTTPError, OSError) as error:
            return Answer(error=f"{type(error).__name__}: {error}"[:300])
        if "PipelineExecutionArn" not in started:
            return Answer(error="the answer names no execution, so it is not SageMaker's")
        return Answer(status=200, text=str(started["PipelineExecutionArn"]))


@cache
def _descriptions() -> Any:
    """Return what reads botocore's descriptions of services, and keeps them: SageMaker's takes a quarter second."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")


def _parameters(owed: Owed) -> list[dict[str, str]]:
    """Return the pipeline's parameters, each with its member of the data; what the data lacks is left out."""
    data = owed.data
    chosen = {name: data.get(member) for name, member in (owed.options.get("parameters") or {}).items()}
    return [{"Name": name, "Value": str(value)[:LONGEST_VALUE]} for name, value in chosen.items() if value is not None]


class _Raw(BytesIO):
    """The bytes of an answer as botocore reads them."""

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        """Yield what is there."""
        while chunk := self.read(65536):
            yield chunk


class _Through:
    """Sends what botocore has signed through the guard, in the place of its own connections."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def __call__(self, request: Any, **_: object) -> Any:
        """Return the receiver's answer; botocore makes a connection of its own only where this returns none."""
        from botocore.awsrequest import AWSResponse

        headers = {
            name: value.decode() if isinstance(value, bytes) else str(value) for name, value in request.headers.items()
        }
        body = request.body.encode() if isinstance(request.body, str) else bytes(request.body or b"")
        with (
            self._guard.client(SECONDS) as client,
            client.stream(request.method, request.url, content=body, headers=headers) as response,
        ):
            read = b""
            for part in response.iter_raw():
                read += part
                if len(read) >= ANSWER_BYTES:
                    break
            return AWSResponse(request.url, response.status_code, dict(response.headers), _Raw(read))
