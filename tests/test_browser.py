"""The lesson in a real JupyterLab in headless Chromium: it runs to the end, and its knob turns."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("Chromium and its driver are not installed", allow_module_level=True)
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SECONDS = 900  # a hang, not a slow machine
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1366,900"
)
CELLS = """
const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
const cells = panel && panel.content && panel.content.model && panel.content.model.cells;
if (!cells || !panel.sessionContext.session || !panel.sessionContext.session.kernel) return null;
const code = Array.from(cells).filter(c => c.type == 'code').map(c => c.toJSON());
return [panel.sessionContext.session.kernel.status, code];
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """A JupyterLab of its own that serves a copy of the notebooks."""
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", f"--port={port}"]
    options += ["--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}", "--LabApp.news_url=None"]
    log = (tmp_path / "lab.log").open("w")
    server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/lab"
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=2).close()
            break
        except OSError:
            time.sleep(0.5)
    yield url
    server.terminate()
    server.wait(20)
    log.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A Chromium with a fresh profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


def wait_for(condition: Any, what: str, seconds: float = SECONDS) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds} s for {what}")


def test_the_lesson_runs_to_the_end_and_its_knob_turns(lab: str, browser: Any) -> None:
    browser.get(f"{lab}/tree/day-9-lstm-gru.ipynb?reset")
    wait_for(lambda: browser.execute_script(CELLS), "a kernel", 120)
    run = "const c = window.jupyterapp.commands; c.execute('{}').then(() => c.execute('{}'))"
    browser.execute_script(run.format("notebook:clear-all-cell-outputs", "notebook:run-all-cells"))

    def run_to_the_end() -> Any:
        found = browser.execute_script(CELLS)
        done = found and found[0] == "idle" and [c["execution_count"] for c in found[1]]
        errors = [o for c in found[1] for o in c["outputs"] if o["output_type"] == "error"] if found else []
        return errors or (done == list(range(1, len(done) + 1)) if done else False)

    time.sleep(5)  # until the committed counts are cleared
    assert wait_for(run_to_the_end, "the last cell") is True

    cells = browser.execute_script(CELLS)[1]
    number = next(n for n, c in enumerate(cells) if "knob = Knob" in "".join(c["source"]))
    browser.execute_script(
        "const p = window.jupyterapp.shell.currentWidget.content;"
        "const n = p.widgets.map((w, m) => [w.model.type, m]).filter(x => x[0] == 'code')[arguments[0]][1];"
        "p.activeCellIndex = n; p.scrollToItem(n)",
        number,
    )
    knob = "Array.from(document.querySelectorAll('[class^=knob-]')).find(k => k.innerText.startsWith('forget bias'))"
    wait_for(lambda: browser.execute_script(f"return !!{knob}"), "the slider", 60)
    shown = f"return Array.from({knob}.querySelectorAll('img')).map(i => i.style.display)"
    assert browser.execute_script(shown).index("block") == 0
    turn = "s.value = 6; s.dispatchEvent(new Event('input', {bubbles: true}))"
    browser.execute_script(f"const s = {knob}.querySelector('input'); {turn}")
    displays = browser.execute_script(shown)
    assert displays.index("block") == 6
    assert displays.count("block") == 1
    assert browser.execute_script(f"return {knob}.querySelector('output').textContent") == "3"
    images = "return Array.from(document.querySelectorAll('.jp-OutputArea img')).map(i => [i.alt, i.naturalWidth])"
    for alt, width in browser.execute_script(images):
        assert len(alt) > 40
        assert width > 100
    severe = [
        e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE" and "console-api" in e["message"]
    ]
    assert not severe
