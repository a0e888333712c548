"""The page of `neuro report` in a real browser (headless Chromium): what a reader does, done by a program.

Opened from a file with the network cut off: no request but the page itself, no message on the console; every tab by
pointer and by arrow keys; hints by pointer and by keyboard; the spikes' zoom moves all layers together; at phone width
nothing sticks out of the page and nothing to press is smaller than 40 px; in print all parts are there; text against
its background reaches 4.5 : 1 (WCAG 2 AA); no colour carries a meaning alone (each verdict has a sign and a word);
without scripts every part can be read. Needs Chromium (on PATH, or NEURO_CHROMIUM) and playwright
(pip install 'axonport[browser]').

    python tests/proofs/report_browser.py [--quick] [--json OUT] [--pictures DIR]

--quick: on a made-up folder; where there is no browser, only what can be told from the text, and says so. The whole
form trains and deploys first, and needs the browser. Exits 1 where anything falls short. Writes
docs/results/report_browser.json unless --quick or --json is given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
RESULT = ROOT / "docs" / "results" / "report_browser.json"
PHONE, DESK = {"width": 390, "height": 800}, {"width": 1200, "height": 900}

# relative luminance and contrast as WCAG 2 defines them, of every element that holds text itself and can be seen
CONTRAST = """() => {
  const part = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (top, below) => {
    const a = top[3] === undefined ? 1 : top[3];
    return [0, 1, 2].map((k) => top[k] * a + below[k] * (1 - a));
  };
  const light = (c) => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || ["SCRIPT", "STYLE", "TITLE"].includes(node.tagName)) continue;
    let behind = [255, 255, 255];
    const chain = [];
    for (let up = node; up; up = up.parentElement) chain.unshift(up);
    for (const each of chain) {
      const c = parse(getComputedStyle(each).backgroundColor);
      if (c[3] !== 0) behind = over(c, behind);
    }
    const style = getComputedStyle(node);
    const ink = over(parse(node.namespaceURI.endsWith("svg") ? style.fill : style.color), behind);
    const [a, b] = [light(ink), light(behind)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 1)[0];
}"""


class Checks:
    """What was asked and what was found."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, what: str, good: bool, found: object) -> None:
        self.rows.append({"what": what, "good": bool(good), "found": found})
        print(f"{'ok  ' if good else 'FAIL'} {what}: {found}")


def chromium() -> str | None:
    named = os.environ.get("NEURO_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def made(place: Path, quick: bool) -> Path:
    if quick:
        from axon_page import folder

        folder(place)
    else:
        subprocess.run([sys.executable, "-m", "neuro", "demo", "--out", str(place), "--quiet"], check=True)
    from neuro.page import write

    return write(place)


def read(page: Path, checks: Checks) -> None:
    text = page.read_text(encoding="utf-8")
    away = [
        word for word in ("http://", "https://", "url(", "@import") if word in text.replace("http://www.w3.org", "")
    ]
    checks.add("the text names nothing that would be fetched", not away, away or "nothing")
    checks.add("verdicts have a sign and a word", "&#10003; " in text, "sign and word")


def watch(page: Path, browser_path: str, checks: Checks, pictures: Path | None) -> str:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        context = browser.new_context(viewport=DESK, offline=True)  # type: ignore[arg-type]
        tab = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda problem: said.append(str(problem)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri())
        tabs = tab.locator("[role=tab]")
        names = tabs.all_inner_texts()
        seen = []
        for k in range(len(names)):
            tabs.nth(k).click()
            shown = tab.locator("main > section:visible")
            seen.append(shown.count() == 1 and shown.get_attribute("data-tab") == names[k])
            if pictures is not None:
                tab.screenshot(path=str(pictures / f"desk_{k}.png"), full_page=True)
        checks.add("each tab shows its part alone", all(seen), f"{sum(seen)} of {len(names)}: {', '.join(names)}")
        tabs.nth(0).click()
        for _ in names:
            tab.keyboard.press("ArrowRight")
        checks.add("arrow keys go round the tabs", tabs.nth(0).get_attribute("aria-selected") == "true", names[0])
        tab.keyboard.press("End")
        checks.add(
            "End goes to the last tab", tabs.nth(len(names) - 1).get_attribute("aria-selected") == "true", names[-1]
        )
        _hints(tab, names, checks)
        _zoom(tab, names, checks)
        worst = [99.0, ""]
        for k in range(len(names)):
            tabs.nth(k).click()
            tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            worst = min(worst, tab.evaluate(CONTRAST))
        checks.add("text against its background at least 4.5 : 1", worst[0] >= 4.5, f"{worst[0]:.2f} at '{worst[1]}'")
        tab.set_viewport_size(PHONE)  # type: ignore[arg-type]
        wide, small = [], []
        for k in range(len(names)):
            tabs.nth(k).click()
            wide.append(tab.evaluate("document.documentElement.scrollWidth"))
            small += tab.evaluate(
                "[...document.querySelectorAll('button')].filter((b) => b.getClientRects().length && "
                "b.getBoundingClientRect().height < 40).map((b) => b.textContent)"
            )
            if pictures is not None:
                tab.screenshot(path=str(pictures / f"phone_{k}.png"), full_page=True)
        checks.add(
            "nothing sticks out at phone width", max(wide) <= PHONE["width"], f"{max(wide)} of {PHONE['width']} px"
        )
        checks.add("nothing to press is lower than 40 px", not small, small or "none")
        tab.emulate_media(media="print")
        printed = tab.locator("main > section:visible").count()
        checks.add("in print every part is there", printed == len(names), f"{printed} of {len(names)}")
        checks.add("in print no buttons", tab.locator("button:visible").count() == 0, "none")
        checks.add("nothing on the console", not said, said or "nothing")
        checks.add("nothing was asked for but the page", asked == [page.as_uri()], f"{len(asked)} request")
        plain = browser.new_context(java_script_enabled=False, offline=True).new_page()
        plain.goto(page.as_uri())
        without = plain.locator("main > section:visible").count()
        checks.add("without scripts every part can be read", without == len(names), f"{without} of {len(names)}")
        version = browser.version
        browser.close()
    return version


def _hints(tab: Any, names: list[str], checks: Checks) -> None:
    tab.locator("[role=tab]").nth(0).click()
    mark = tab.locator(".chart:visible .mark").first
    mark.hover()
    by_pointer = tab.locator("#hint").inner_text()
    tab.mouse.move(2, 2)
    mark.focus()
    by_keyboard = tab.locator("#hint").inner_text()
    checks.add("a mark says its value", by_pointer == by_keyboard != "", by_pointer)


def _zoom(tab: Any, names: list[str], checks: Checks) -> None:
    with_spikes = next(k for k, name in enumerate(names) if name in ("loihi1", "loihi2"))
    tab.locator("[role=tab]").nth(with_spikes).click()
    all_of = "[...document.querySelectorAll('section:not([hidden]) .raster')]"
    boxes = all_of + ".map((s) => s.getAttribute('viewBox').split(' '))"
    before = tab.evaluate(boxes)
    tab.locator("section:visible [data-do=in]").focus()
    tab.keyboard.press("Enter")
    near = tab.evaluate(boxes)
    tab.locator("section:visible [data-do=right]").click()
    later = tab.evaluate(boxes)
    together = len({(b[0], b[2]) for b in later}) == 1
    halved = float(near[0][2]) == float(before[0][2]) / 2
    moved = float(later[0][0]) > float(near[0][0])
    tab.locator("section:visible [data-do=all]").click()
    whole = tab.evaluate(boxes) == before
    said = f"{len(before)} layers: {before[0][2]} -> {near[0][2]} steps, from {near[0][0]} to {later[0][0]}"
    checks.add("zoom, shift and back, all layers together", together and halved and moved and whole, said)
    raster = tab.locator("section:visible .raster").first
    raster.hover()
    where = tab.locator("section:visible .where").inner_text()
    checks.add("the pointer says neuron and time", "neuron" in where, where)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="screenshots of every part, at desk and phone width")
    options = parser.parse_args()
    checks = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        page = made(Path(scratch), options.quick)
        size = page.stat().st_size
        read(page, checks)
        checks.add("the page is below 10 MB", size < 10e6, f"{size / 1e6:.2f} MB")
        path = chromium()
        try:
            import playwright  # noqa: F401

            missing = None if path else "chromium"
        except ImportError:
            missing = "playwright"
        if missing:
            print(f"not run in a browser: {missing} is not there")
            if not options.quick:
                return 1
            version = None
        else:
            assert path is not None
            if options.pictures:
                options.pictures.mkdir(parents=True, exist_ok=True)
            version = watch(page, path, checks, options.pictures)
    good = all(row["good"] for row in checks.rows)
    result = {"holds": good, "quick": options.quick, "browser": version and f"Chromium {version}", "page_bytes": size,
              "checks": checks.rows}  # fmt: skip
    out = options.json or (None if options.quick else RESULT)
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{sum(row['good'] for row in checks.rows)} of {len(checks.rows)} hold")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
