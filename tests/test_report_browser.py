"""``report.html`` in a real browser: quiet, offline, and its viewer does what it says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nla_audit.report import audit
from nla_audit.report.audit import run_audit
from nla_audit.report.single import write_probe
from tests import report_samples as samples
from tests.test_report_probe import RECORD as PROBE_RECORD
from tests.test_report_probe import probe_finding

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

# Behind the line that skips these tests where there is no selenium.
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

_CHROMIUM, _DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
pytestmark = pytest.mark.skipif(
    not (_CHROMIUM.exists() and _DRIVER.exists()),
    reason="needs the distribution's chromium and chromium-driver",
)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
#: Must show 5: a viewer of this size has to answer at once.
_ACTIVATIONS = 1000
_STEP_SECONDS = 0.2


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 1,000 activations by seven models, written once for all tests."""
    out = tmp_path_factory.mktemp("browser") / "out"
    registered = {"frontier": samples.card("frontier", figures=5)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "registry", lambda: registered)
        patch.setattr(audit, "_fate_spans", lambda table, *_: samples.fate_spans(table))
        run_audit(samples.completions(_ACTIVATIONS), out, seed=0)
    return out / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(_CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The driver is named, so that selenium looks for none and downloads none.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(_DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report at its viewer; afterwards nothing may have been logged or fetched."""
    browser.get("about:blank")
    browser.get(report.as_uri() + "#viewer")
    browser.execute_script(
        "document.documentElement.style.scrollBehavior = 'auto';"
        "document.getElementById('viewer').scrollIntoView()"
    )
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def where(page: Any) -> str:
    return page.find_element(By.ID, "viewer-where").text


def press(page: Any, *keys: str) -> None:
    body = page.find_element(By.TAG_NAME, "body")
    for key in keys:
        body.send_keys(key)


def choose(page: Any, control: str, text: str) -> None:
    Select(page.find_element(By.ID, f"viewer-{control}")).select_by_visible_text(text)


def count(page: Any) -> str:
    return page.find_element(By.ID, "viewer-count").text


def card_text(page: Any, model: str) -> str:
    return page.find_element(By.CSS_SELECTOR, f'.card[data-model="{model}"]').text


def test_the_viewer_steps_by_button_and_by_key(page: Any) -> None:
    assert where(page) == "Activation 0 1 of 1,000"
    page.find_element(By.ID, "viewer-next").click()
    assert where(page) == "Activation 1 2 of 1,000"
    press(page, "j", Keys.ARROW_RIGHT)
    assert where(page).startswith("Activation 3 ")
    press(page, "k", Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert where(page).startswith("Activation 0 ")
    press(page, "k")
    assert where(page).startswith("Activation 0 ")
    assert not page.find_element(By.ID, "viewer-previous").is_enabled()


def test_every_model_is_shown_beside_the_reference(page: Any) -> None:
    cards = page.find_elements(By.CSS_SELECTOR, ".card")
    names = [card.get_attribute("data-model") for card in cards]
    assert names[:2] == ["p0.0", "p0.03"]
    assert sorted(names) == sorted(samples.MODELS)
    text = card_text(page, "p0.03")
    assert "40 tokens" in text
    assert "0.900 FVE" in text
    assert "+0.250 change" in text
    assert "Claim two of p0.03." in text
    source = page.find_element(By.ID, "viewer-source").text
    assert "source of 0 ends word0" in source


def test_failed_empty_and_unknown_sources_are_named(page: Any) -> None:
    press(page, "j", "j", "j")
    assert "Failed" in card_text(page, "p0.03")
    assert "no source text" in page.find_element(By.ID, "viewer-source").text
    press(page, "j")
    assert "Empty" in card_text(page, "p0.03")


def test_markup_in_an_explanation_is_text(page: Any) -> None:
    press(page, *"jjjjj")
    for model in samples.MODELS:
        assert samples.HOSTILE in card_text(page, model)
    assert not page.find_elements(By.CSS_SELECTOR, "#viewer script, img")
    assert "owned" not in page.title


def test_claims_show_what_the_compared_model_did_to_them(page: Any) -> None:
    def fates(model: str) -> list[tuple[str, str]]:
        marks = page.find_elements(
            By.CSS_SELECTOR, f'.card[data-model="{model}"] .explanation span'
        )
        return [(mark.get_attribute("class"), mark.text) for mark in marks]

    compared = fates("p0.03")
    assert [name for name, _ in compared] == ["kept", "reworded", "added", "kept"]
    # The third claim ends after an astral character: code points, not UTF-16 units, were given.
    assert compared[2][1] == 'The final token is "word0" 🙂.'
    first = fates("p0.0")
    press(page, "]", "[", "[")
    assert Select(page.find_element(By.ID, "viewer-model")).first_selected_option.text == "p0.015"
    assert [text for _, text in fates("p0.0")] == [text for _, text in first]
    assert [name for name, _ in fates("p0.0")] != [name for name, _ in first]
    lines = {
        page.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0])).textDecorationStyle",
            f".legend .{name}",
        )
        for name in ("kept", "reworded", "omitted", "added")
    }
    assert len(lines) == 4


def test_search_finds_words_in_any_explanation(page: Any) -> None:
    press(page, "/")
    box = page.find_element(By.ID, "viewer-search")
    assert page.switch_to.active_element == box
    box.send_keys("OF word17 two")
    WebDriverWait(page, 5).until(lambda _: count(page) == "11 of 1,000 activations")
    assert where(page).startswith("Activation 17 ")
    marks = {mark.text.lower() for mark in page.find_elements(By.CSS_SELECTOR, ".card mark")}
    assert "two" in marks
    box.clear()
    box.send_keys("no such words")
    WebDriverWait(page, 5).until(lambda _: where(page) == "Nothing matches")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.DELETE)
    WebDriverWait(page, 5).until(lambda _: count(page) == "1,000 of 1,000 activations")


def test_filters_and_sorts_follow_the_compared_model(page: Any) -> None:
    choose(page, "filter", "compared model failed")
    assert (count(page), where(page)) == ("1 of 1,000 activations", "Activation 3 1 of 1")
    choose(page, "filter", "compared model is empty")
    assert where(page) == "Activation 4 1 of 1"
    choose(page, "model", "p0.001")
    assert count(page) == "0 of 1,000 activations"
    choose(page, "filter", "source text known")
    assert count(page) == "500 of 1,000 activations"
    choose(page, "filter", "all activations")
    choose(page, "sort", "FVE change, losses first")
    assert "−0.150 change" in card_text(page, "p0.001")
    choose(page, "sort", "FVE change, gains first")
    assert "+0.050 change" in card_text(page, "p0.001")
    choose(page, "sort", "tokens, most first")
    assert "86 tokens" in card_text(page, "p0.001")


def test_the_address_keeps_the_activation(page: Any, report: Path) -> None:
    press(page, "j", "j")
    assert page.current_url.endswith("#activation=2")
    page.get("about:blank")
    page.get(report.as_uri() + "#activation=700")
    assert where(page).startswith("Activation 700 ")


def test_the_list_holds_only_what_is_in_sight(page: Any) -> None:
    rows = page.find_elements(By.CSS_SELECTOR, ".shelf-row")
    assert len(rows) < 60
    page.execute_script("document.getElementById('viewer-list').scrollTop = 44 * 500")
    WebDriverWait(page, 5).until(
        lambda _: page.find_elements(By.CSS_SELECTOR, '.shelf-row[data-place="500"]')
    )
    page.find_element(By.CSS_SELECTOR, '.shelf-row[data-place="503"]').click()
    assert where(page).startswith("Activation 503 ")


def test_a_step_through_a_thousand_activations_is_quick(page: Any) -> None:
    milliseconds = page.execute_script(
        """
        const times = [];
        for (let step = 0; step < 50; step += 1) {
          const start = performance.now();
          document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
          document.body.getBoundingClientRect();  // forces the layout that the reader waits for
          times.push(performance.now() - start);
        }
        return times.sort((a, b) => a - b)[25];
        """
    )
    assert where(page).startswith("Activation 50 ")
    assert milliseconds < 1000 * _STEP_SECONDS
    started = time.perf_counter()
    choose(page, "sort", "FVE change, losses first")
    assert time.perf_counter() - started < 5 * _STEP_SECONDS


def test_help_opens_and_closes(page: Any) -> None:
    press(page, "?")
    dialog = page.find_element(By.ID, "viewer-help")
    assert dialog.is_displayed()
    dialog.find_element(By.TAG_NAME, "button").click()
    assert not dialog.is_displayed()


def test_tables_sort_by_a_heading_with_the_unknown_last(page: Any) -> None:
    table = page.find_element(By.CSS_SELECTOR, "#frontier table")
    heading = table.find_element(By.XPATH, './/th[normalize-space()="token saving"]/button')

    def models() -> list[str]:
        return [row.text for row in table.find_elements(By.CSS_SELECTOR, "tbody th")]

    page.execute_script("arguments[0].click()", heading)
    assert models() == [*samples.MODELS[2:], "p0.0"]
    page.execute_script("arguments[0].click()", heading)
    assert models() == [*reversed(samples.MODELS[2:]), "p0.0"]


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_overflows_the_window(page: Any, width: int) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        spare = page.execute_script("return innerWidth - document.documentElement.scrollWidth")
        columns = page.execute_script(
            "return new Set([...document.querySelectorAll('.card')].map((card) => "
            "card.getBoundingClientRect().left)).size"
        )
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert spare >= 0
    assert (columns == 1) == (width < 500)


def test_the_policy_stops_a_request(browser: Any, report: Path) -> None:
    """The policy itself is tested, not only that the page happens to ask for nothing."""
    browser.get(report.as_uri())
    blocked = browser.execute_async_script(
        """
        const done = arguments[0];
        document.addEventListener("securitypolicyviolation", (e) => done(e.effectiveDirective));
        fetch("data:text/plain,hello").catch(() => {});
        setTimeout(() => done("nothing was stopped"), 2000);
        """
    )
    browser.get_log("browser")
    assert blocked == "connect-src"


@pytest.mark.parametrize("width", [390, 1400])
def test_the_probes_report_shows_before_and_after(browser: Any, tmp_path: Path, width: int) -> None:
    files = write_probe(probe_finding(), tmp_path, record=PROBE_RECORD, what={})
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(next(file for file in files if file.name == "stego.html").as_uri())
        spare = browser.execute_script("return innerWidth - document.documentElement.scrollWidth")
        summary = browser.find_element(By.CSS_SELECTOR, "details.examples summary")
        browser.execute_script("arguments[0].click()", summary)
        before, after = browser.find_elements(By.CSS_SELECTOR, "details[open] .pair p")[:2]
        assert before.is_displayed()
        assert "<script>alert(1)</script>" in after.text  # as text
        assert after.find_elements(By.TAG_NAME, "ins")
        tops = [part.location["y"] for part in (before, after)]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert spare >= 0
    assert (tops[0] == tops[1]) == (width > 500)
    assert browser.get_log("browser") == []
