"""Row samples: some of a window's rows, always the same, in every form, for keys that may read rows."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.access import Scope
from tests.service.opened import key_of, opened

START = datetime(2026, 1, 5, tzinfo=UTC)
SPAN = {"from": "2026-01-05T00:00:00Z", "to": "2026-01-07T00:00:00Z"}
SAMPLES = "/v1/models/loans/samples"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Sixty rows in thirty hours; every second one has a label, the first features a formula of a spreadsheet."""
    with opened(tmp_path_factory.mktemp("samples")) as found:
        body = {"name": "loans", "task": "binary", "classes": ["0", "1"], "protected_attributes": ["sex"]}
        assert found.post("/v1/models", json=body).status_code == 201
        records = [
            {
                "prediction_id": f"p{number}",
                "timestamp": (START + number * timedelta(minutes=30)).isoformat(),
                "features": {"age": number, "job": "=clerk" if number == 0 else "nurse"},
                "prediction": number % 2,
                "protected": {"sex": "F"},
                "subject": "a person",
            }
            for number in range(60)
        ]
        labels = [{"prediction_id": f"p{number}", "ground_truth": 1} for number in range(0, 60, 2)]
        for what, rows in (("predictions", records), ("ground-truth", labels)):
            assert found.post(f"/v1/models/loans/{what}", json=rows).status_code == 200
        yield found


def sampled(client: TestClient, accept: str = "application/json", **query: Any) -> Any:
    answer = client.get(SAMPLES, params=SPAN | query, headers={"accept": accept})
    assert answer.status_code == 200, answer.text
    return answer


def test_a_window_of_few_rows_is_its_own_sample_with_the_newest_labels(client: TestClient) -> None:
    told = sampled(client).json()
    assert (told["version"], told["rows"], len(told["items"])) == ("1", 60, 60)
    by_id = {item["prediction_id"]: item for item in told["items"]}
    assert by_id["p7"]["features"] == {"age": 7, "job": "nurse"}
    assert (by_id["p7"]["timestamp"], by_id["p7"]["prediction"]) == ("2026-01-05T03:30:00Z", "1")
    assert [("ground_truth" in by_id[name]) for name in ("p6", "p7")] == [True, False]
    assert sampled(client, to="2026-01-05T02:00:00Z").json()["rows"] == 4


def test_a_smaller_sample_is_a_part_of_a_larger_one_and_the_same_at_every_call(client: TestClient) -> None:
    ten, again, twenty = (
        [item["prediction_id"] for item in sampled(client, limit=limit).json()["items"]] for limit in (10, 10, 20)
    )
    assert ten == again == twenty[:10]
    assert ten != sorted(ten, key=lambda name: int(name[1:]))  # in order of a hash, not of time


def test_every_form_holds_the_rows_without_what_is_protected(client: TestClient) -> None:
    table = pq.read_table(io.BytesIO(sampled(client, "application/vnd.apache.parquet").content))
    assert table.num_rows == 60
    assert set(table.column_names) == {
        "prediction_id",
        "timestamp",
        "features.age",
        "features.job",
        "prediction",
        "ground_truth",
    }
    text = sampled(client, "text/csv").text
    assert len(text.splitlines()) == 61
    assert "'=clerk" in text  # a spreadsheet would run it
    assert "person" not in text + sampled(client).text
    assert '"F"' not in sampled(client).text


def test_rows_need_their_scope_whole_hours_and_a_window_of_bounded_length(client: TestClient) -> None:
    assert client.get(SAMPLES, params=SPAN, headers=key_of(client, Scope.READ)).status_code == 403
    assert client.get(SAMPLES, params=SPAN, headers=key_of(client, Scope.ROWS)).status_code == 200
    for wrong in ({"to": "2026-01-05T00:30:00Z"}, {"to": "2026-01-01T00:00:00Z"}, {"to": "2027-01-01T00:00:00Z"}):
        assert client.get(SAMPLES, params=SPAN | wrong).status_code == 422
    assert client.get(SAMPLES, params=SPAN | {"version": "2"}).status_code == 404
    empty = {"from": "2026-02-01T00:00:00Z", "to": "2026-02-02T00:00:00Z"}
    assert sampled(client, **empty).json()["items"] == []
    assert sampled(client, "text/csv", **empty).text.splitlines() == ["prediction_id"]
