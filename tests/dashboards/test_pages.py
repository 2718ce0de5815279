"""Pages show what their data class holds, their twins hold the same, and names are text whatever they contain."""

import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from jinja2 import UndefinedError
from markupsafe import escape

from dashboards import charts, formats
from dashboards.drift import ordered, quadrant, strength
from dashboards.page import Page, Spark, View, environment
from dashboards.standing import Standing, standing_of, worst
from tests.dashboards import samples

PAGES = samples.every_page()
TEXTS: dict[int, str] = {}
"""The HTML of each of them, rendered when a test first asks for it."""


def text_of(page: Page) -> str:
    if id(page) not in TEXTS:
        TEXTS[id(page)] = page.html()
    return TEXTS[id(page)]


class Tags(HTMLParser):
    """Collects every element with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags_of(page: Page) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(text_of(page))
    return parser.found


every_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())


@every_page
def test_a_page_renders_from_its_data_class_alone(page: Page) -> None:
    text = text_of(page)
    assert text.startswith("<!doctype html>")
    assert "None" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)


def test_a_template_that_asks_for_more_than_its_page_holds_is_an_error() -> None:
    page = samples.problem_page()
    held = {one.name: getattr(page, one.name) for one in dataclasses.fields(page)}
    del held["detail"]
    with pytest.raises(UndefinedError):
        environment().get_template(page.template).render(held)


@every_page
def test_the_twin_of_a_page_is_json_with_the_same_fields(page: Page) -> None:
    document = json.loads(json.dumps(page.document(), allow_nan=False))
    shown = {one.name for one in dataclasses.fields(page) if one.metadata.get("twin", True)}
    assert set(document) == shown


@every_page
def test_the_twin_of_a_page_holds_no_token_and_no_address_of_files(page: Page) -> None:
    text = json.dumps(page.document())
    assert "token-of-the-session" not in text
    assert "/static/" not in text


@every_page
def test_numbers_of_the_table_of_a_chart_are_in_the_twin(page: Page) -> None:
    def charts_in(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            found = [value] if "spec" in value and "rows" in value else []
            return found + [chart for member in value.values() for chart in charts_in(member)]
        return [chart for member in value for chart in charts_in(member)] if isinstance(value, list) else []

    for chart in charts_in(page.document()):
        assert chart["title"]
        assert chart["description"].endswith(".")
        assert all(len(row) == len(chart["columns"]) for row in chart["rows"])


def test_the_numbers_of_a_chart_are_in_a_table_that_needs_no_script() -> None:
    assert [tag for tag, _ in tags_of(PAGES["drift"])].count("tr") > 20


@every_page
def test_a_hostile_name_is_text_and_never_markup(page: Page) -> None:
    text = text_of(page)
    assert samples.HOSTILE not in text
    assert not [tag for tag, _ in tags_of(page) if tag == "img"]


def test_a_hostile_name_is_shown_as_it_is() -> None:
    assert str(escape(samples.HOSTILE)) in samples.drift_page().html()


@every_page
def test_a_page_has_no_inline_script_style_or_handler(page: Page) -> None:
    for tag, attributes in tags_of(page):
        assert tag != "style"
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "script":
            assert attributes.get("src") or attributes.get("type") == "application/json"


@every_page
def test_a_page_asks_nothing_of_another_host(page: Page) -> None:
    for _, attributes in tags_of(page):
        for name in ("src", "href", "action"):
            assert not re.match(r"(?i)\s*([a-z][a-z0-9+.-]*:|//)", attributes.get(name) or "")


@every_page
def test_a_page_has_one_heading_a_main_and_a_skip_link(page: Page) -> None:
    tags = tags_of(page)
    assert len([1 for tag, _ in tags if tag == "h1"]) == 1
    assert [attributes["id"] for tag, attributes in tags if tag == "main"] == ["main"]
    assert [1 for tag, attributes in tags if tag == "a" and attributes.get("href") == "#main"]


@every_page
def test_every_form_that_changes_something_carries_the_token(page: Page) -> None:
    text = text_of(page)
    for form in re.findall(r'<form method="post".*?</form>', text, flags=re.S):
        door = "/sign-in" in form
        assert door or 'name="csrf_token" value="token-of-the-session"' in form


def test_every_page_of_the_package_is_among_the_samples() -> None:
    def subclasses(kind: type[Page]) -> set[type[Page]]:
        return {found for each in kind.__subclasses__() for found in {each} | subclasses(each)}

    concrete = {kind for kind in subclasses(Page) if hasattr(kind, "template") and kind.__module__.startswith("dash")}
    assert concrete == {type(page) for page in PAGES.values()}


def test_a_partial_or_silent_standing_is_worse_than_ok() -> None:
    assert worst([Standing.OK, Standing.PARTIAL]) is Standing.PARTIAL
    assert worst([Standing.OK, Standing.NOT_MEASURED]) is Standing.NOT_MEASURED
    assert worst([]) is Standing.WAITING
    assert standing_of("no_data") is Standing.NOT_MEASURED
    assert standing_of("a word that nobody knows") is Standing.NOT_MEASURED


def test_the_fleet_is_worst_first() -> None:
    assert [row.model for row in samples.fleet_page().rows] == ["credit-risk", "churn", "fraud-eu"]


def test_columns_are_violated_and_furthest_first_unless_another_order_is_asked_for() -> None:
    columns = [samples.column_drift(i) for i in range(len(samples.NAMES))]
    assert [one.column for one in ordered(columns, "")][:3] == [samples.HOSTILE, "credit_score", "income"]
    assert [one.column for one in ordered(columns, "name")] == sorted(samples.NAMES)
    assert ordered(columns, "p")[-1].column == "purpose"  # not measured: no p-value


def test_strength_is_the_multiple_of_the_limit() -> None:
    assert strength(0.3, 0.25, 0.1, None) == pytest.approx(2.5)
    assert strength(0.3, 0.25, 0.1, 0.2) == pytest.approx(1.5)  # a fixed threshold decides
    assert strength(0.3, -0.01, 0.1, None) == 0
    assert strength(None, None, 0.1, None) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (1234.5678, "1\u202f235"),
        (12.0, "12"),
        (0, "0"),
        (-0.5, "\u22120.5"),
        (0.00001234, "1.23e\u22125"),
        (123456789, "123\u202f456\u202f789"),
        (None, "—"),
        (float("nan"), "—"),
    ],
)
def test_numbers_have_at_most_four_digits_that_mean_something(value: float | None, text: str) -> None:
    assert formats.number(value) == text


def test_a_p_value_below_one_in_ten_thousand_is_a_bound() -> None:
    assert formats.probability(0.00001) == "< 0.0001"
    assert formats.probability(0.0314) == "0.031"
    assert formats.probability(None) == "—"


def test_a_window_is_named_as_people_name_it() -> None:
    start = datetime(2019, 4, 1, tzinfo=UTC)
    assert formats.span(start, datetime(2019, 5, 1, tzinfo=UTC)) == "April 2019"
    assert formats.span(start, start + timedelta(days=1)) == "2019-04-01"
    assert formats.span(start, start + timedelta(days=7)) == "2019-04-01 to 2019-04-07"
    assert formats.span(start, start + timedelta(hours=1)) == "2019-04-01 00:00 to 01:00"


def test_ages_are_told_in_one_unit() -> None:
    now = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
    assert formats.age(now - timedelta(minutes=7), now) == "7 min ago"
    assert formats.age(now - timedelta(hours=26), now) == "26 h ago"
    assert formats.age(now + timedelta(days=3), now) == "in 3 d"


def test_what_a_reader_chose_stands_in_the_address() -> None:
    view = View(range_="30d", feature=samples.HOSTILE, from_=datetime(2019, 4, 1, tzinfo=UTC))
    assert view.query(sort="p") == (
        "?from=2019-04-01T00%3A00%3A00Z&range=30d&feature=%3Cimg+src%3Dx+onerror%3Dalert%281%29%3E&sort=p"
    )
    assert view.query(range_="", feature="", from_="") == "?"


def test_a_spark_keeps_gaps_and_scales_to_its_largest() -> None:
    assert Spark.of([1.0, None, 4.0]).heights == (0.25, None, 1.0)
    assert Spark.of([0.0, 0.0]).heights == (0.0, 0.0)


def test_a_chart_of_more_marks_than_a_browser_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="5001 rows, at most 5000"):
        charts.Chart(id="x", title="x", description="x.", spec={}, height=1, columns=("a",), rows=((1,),) * 5001)


def test_a_heatmap_names_its_cells_and_marks_what_was_not_measured() -> None:
    chart = samples.heatmap()
    values = chart.spec["data"]["values"]
    assert len(values) == 11 * 29
    silent = [one for one in values if one["strength"] is None]
    assert {one["column"] for one in silent} == {"purpose"}
    assert {one["times"] for one in silent} == {"not measured"}


def test_the_quadrant_holds_the_columns_of_which_drift_and_importance_are_known_and_names_the_few_that_matter() -> None:
    columns = [samples.column_drift(place) for place in range(len(samples.NAMES))]
    chart = samples.drift_page().quadrant
    assert chart is not None
    known = {one.column: one for one in columns if one.importance is not None and one.strength is not None}
    assert {row[0] for row in chart.rows} == set(known)
    assert "purpose" not in known  # it was not measured
    assert [row[0] for row in chart.rows] == sorted(known, key=lambda name: (-(known[name].impact or 0), name))
    values = chart.spec["data"]["values"]
    assert [bool(one["name"]) for one in values] == [place < 8 for place in range(len(values))]
    heeded = sum(one.importance is not None for one in columns)
    assert chart.spec["layer"][1]["data"]["values"] == [{"importance": 1 / heeded}]
    assert quadrant(columns[:1]) is None


def test_names_that_users_chose_stand_where_vega_makes_no_expression_of_them() -> None:
    def without_data(part: Any) -> Any:
        if isinstance(part, dict):
            return {k: without_data(v) for k, v in part.items() if k not in ("data", "domain", "description")}
        return [without_data(each) for each in part] if isinstance(part, list) else part

    for page in (
        samples.drift_page(),
        samples.drift_page(category=True),
        samples.overview_page(),
        samples.quality_page(),
        samples.fairness_page(),
    ):
        for spec in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.html(), flags=re.S):
            assert "onerror" not in json.dumps(without_data(json.loads(spec)))


def test_the_specifications_name_no_address_and_no_expression_from_data() -> None:
    for page in PAGES.values():
        for spec in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.html(), flags=re.S):
            found = json.loads(spec)
            assert found["$schema"] == charts.SCHEMA
            assert '"url"' not in spec
