"""A page in a real browser: it loads from a file without a complaint, and fits narrow and wide screens."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from localgrad.pipeline import schedules
from localgrad.report.facts import Example, Seen
from localgrad.report.page import render
from localgrad.report.pictures import data_address
from localgrad.report.timeline import timeline

from .test_page import run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """<script>
const shown = getComputedStyle(document.body);
const inside = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, svg, details:not([open])"));
parent.postMessage(JSON.stringify({
  page: document.documentElement.scrollWidth, window: innerWidth, paper: shown.backgroundColor, ink: shown.color,
  wider: inside.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)),
  svgs: [...document.querySelectorAll("figure svg")].filter(e => e.getBoundingClientRect().height < 40).length,
}), "*");
</script>"""
# The browser's own window is never narrower than 500 pixels, a frame is.
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><title></title><link rel="icon" href="data:,">
<script>addEventListener("message", event => {{ document.title = event.data; }});</script>
<iframe src="{address}" width="{width}" height="900" style="border: 0; color-scheme: light dark"></iframe>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(0)
    picture = data_address(rng.integers(0, 256, (8, 8, 1), np.uint8))
    worst = tuple(Example(i, "1", "7", 0.9, picture, "") for i in range(5))
    seen = Seen(rng.integers(0, 50, (20, 20)), tuple(map(str, range(20))), worst)
    runs = [run("a_method_of_a_long_name_without_a_space" * 2, blocks=64), run("al", trials=2, seen=seen)]
    text = render(runs, defaults={}, command="localgrad report " + "a" * 200)
    drawn, *_ = timeline(schedules.local(64), range(65), 9)
    text = text.replace("</main>", f'<figure class="wide"><div class="scroll">{drawn}</div></figure></main>')
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text.replace("</body>", f"{MEASURE}</body>"))
    return path


def opened(path, folder, width, *more):
    """What the page says of itself, and what the browser said."""
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(address=path.as_uri(), width=width))
    line = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'own'}"]
    line += ["--enable-logging=stderr", "--dump-dom", "--disable-background-networking", "--window-size=1500,1000"]
    line += [*more, frame.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=180)
    (title,) = re.findall(r"<title>(\{.*?\})</title>", done.stdout)
    return json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), done.stderr


@pytest.mark.full
@pytest.mark.skipif(BROWSER is None, reason="wants chromium")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_a_page_loads_and_fits(page, tmp_path, width, dark):
    scheme = "--blink-settings=preferredColorScheme=0" if dark else "--blink-settings=preferredColorScheme=1"
    found, said = opened(page, tmp_path, width, scheme)
    assert "CONSOLE" not in said, said
    assert found["window"] == width
    assert found["page"] <= width and found["wider"] == [] and found["svgs"] == 0, found
    light = {key: sum(map(int, re.findall(r"\d+", found[key])[:3])) / 3 for key in ("paper", "ink")}
    assert (light["paper"] < 60 and light["ink"] > 200) if dark else (light["paper"] > 200 and light["ink"] < 60)


@pytest.mark.full
@pytest.mark.skipif(BROWSER is None, reason="wants chromium")
def test_the_look_out_sees_errors_and_what_is_too_wide(page, tmp_path):
    bad = tmp_path / "bad.html"
    wide = '<p style="width:2000px;max-width:none">wide</p><script>console.error("bad")</script>'
    bad.write_text(page.read_text().replace("</main>", f"{wide}</main>"))
    found, said = opened(bad, tmp_path, 400)
    assert "CONSOLE" in said and found["page"] >= 2000 and found["wider"]
