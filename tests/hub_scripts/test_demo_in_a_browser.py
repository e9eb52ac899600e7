"""A pushed Space, and `lrsa demo`, in a real browser: Chromium, driven by Playwright."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from PIL import Image


pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ROOT = Path(__file__).parents[2]
TEXT = "awful phones at riverbend"
HOSTILE = """<script>document.title = "broken"</script> <img src=x onerror="document.title='broken'"> </textarea>
&lt;b&gt; ${document.title = 'broken'} {{ value }} `phones`"""


class Loopback(BaseHTTPRequestHandler):
    """A server inside of this network: a chat model, and a picture that nobody may have fetched for them."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        parts = [part for message in asked["messages"] for part in message["content"] if isinstance(part, dict)]
        kind = "picture" if len(self.server.asked) == 2 else "text"
        content = f"The {kind} is so great . <b>{sum(part['type'] == 'image_url' for part in parts)}</b>"
        message = {"role": "assistant", "content": content}
        self.send({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "id": "a", "created": 1})

    def do_GET(self):
        self.server.fetched.append(self.path)
        self.send({})

    def send(self, content):
        body = json.dumps(content | {"model": "m", "object": "chat.completion"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def loopback():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Loopback)
    server.asked, server.fetched, server.url = [], [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@contextmanager
def running(program: list, environment: dict, folder: Path, log: Path) -> Iterator[None]:
    """A process that serves a page."""
    environment = environment | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (
        open(log, "wb") as errors,
        subprocess.Popen(
            program, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as one,
    ):
        try:
            for line in one.stdout:
                if "Running on" in line:
                    break
            else:
                pytest.fail(log.read_text())
            yield
        finally:
            one.terminate()


@pytest.fixture(scope="module")
def address(picture_model, running_hub, lrsa, loopback, tmp_path_factory):
    """Where a Space runs that was pushed with its model, in a process without this package, cache or token, with a
    large model behind a server to write rationales.
    """
    pytest.importorskip("gradio", reason="needs gradio: pip install lrsa[demo]")
    done = lrsa("push", picture_model, "their-model", "--space", "try-it")
    assert done.code == 0, done.err
    place, port = tmp_path_factory.mktemp("space"), free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= running_hub.environment(place / "home", token=None)
    environment |= {"LRSA_WRITER": "large-model", "LRSA_WRITER_URL": f"{loopback.url}/v1"}
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": port}
    program = [sys.executable, Path(__file__).with_name("space_runner.py"), "someone/try-it", place / "files"]
    with running(program, environment, place, place / "log"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def demo(picture_model, tmp_path):
    """Where `lrsa demo` runs."""
    port = free_port()
    program = [sys.executable, "-m", "hub_scripts.cli", "demo", picture_model, "--port", port, "--no-browser"]
    with running(program, os.environ | {"HF_HUB_OFFLINE": "1"}, ROOT, tmp_path / "log"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs a driver: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desktop", "phone"])
def page(request, address, browser):
    page = browser.new_page(viewport={"width": request.param[0], "height": request.param[1]})
    page.set_default_timeout(30_000)
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    page.get_by_role("button", name="Find aspects").wait_for()
    yield page
    # All from this machine, nothing of a page that is served to strangers from elsewhere.
    assert all(url.startswith((address, "data:", "blob:")) for url in page.requests)
    assert page.evaluate("document.documentElement.scrollWidth") <= request.param[0]
    page.close()


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "post.png"
    Image.linear_gradient("L").resize((300, 200)).save(path)
    return path


def enter(page, text=TEXT, picture=None, **fields):
    page.get_by_label("Post", exact=True).fill(text)
    if picture is not None:
        page.locator("input[type=file]").set_input_files(picture)
        page.locator("button[aria-label='Remove Image'], button[aria-label='Clear']").first.wait_for()
    for label, value in fields.items():
        page.get_by_label(re.compile(label, re.IGNORECASE)).fill(value)


def press(page):
    page.get_by_role("button", name="Find aspects").click()


def alert(page) -> str:
    page.locator("#result [role=alert]").wait_for()
    return page.locator("#result [role=alert]").inner_text()


def test_a_post_with_picture_and_rationales(page, picture):
    enter(page, TEXT, picture, **{"text rationale": "so great ", "picture rationale": "a hall !"})
    press(page)
    marks = page.locator("#result .post mark")
    marks.first.wait_for()
    shown = marks.all_inner_texts()
    assert shown and all(re.search(r"(▲ positive|● neutral|▼ negative) [01]\.\d\d$", text) for text in shown)
    assert {text.partition("▲")[0].partition("●")[0].partition("▼")[0].strip() for text in shown} <= set(TEXT.split())
    assert page.locator("#result details").count() == marks.count()
    heat = page.locator("#result details[open] img")
    size = heat.evaluate("async image => {await image.decode(); return [image.naturalWidth, image.naturalHeight]}")
    assert size == [300, 200]
    assert heat.get_attribute("alt").startswith("Heat map over the picture: the most at the ")
    words = page.locator("#result details[open] .rationale span").all_inner_texts()
    assert words == ["so", "great", "a", "hall", "!"]
    assert page.locator("#result").get_attribute("aria-live") == "polite"
    assert page.locator("#result").evaluate("result => result.getBoundingClientRect().top < innerHeight")


def test_the_page_names_its_model(page):
    assert page.get_by_text("Model: someone/their-model").is_visible()


def test_lrsa_demo_is_the_same_page(demo, browser, picture, picture_model):
    page = browser.new_page()
    page.goto(demo)
    enter(page, TEXT, picture, **{"text rationale": "so great "})
    press(page)
    page.locator("#result .post mark").first.wait_for()
    assert page.locator("#result details[open] img").count() == 1
    assert page.get_by_text(f"Model: {picture_model}").is_visible()
    page.close()


def test_without_text_there_is_an_error(page, picture):
    enter(page, "  ", picture)
    press(page)
    assert alert(page) == "Error: write a post first; aspects are found in its text."
    assert page.locator("#result mark").count() == 0
    enter(page, TEXT)
    press(page)
    page.locator("#result mark").first.wait_for()
    assert page.locator("#result [role=alert]").count() == 0


def test_html_and_scripts_are_text(page):
    title = page.title()
    enter(page, HOSTILE, **{"text rationale": HOSTILE})
    press(page)
    page.locator("#result .post").wait_for()
    page.wait_for_timeout(500)
    post = page.locator("#result .post").evaluate(
        "post => {post.querySelectorAll('.tag').forEach(tag => tag.remove()); return post.textContent}"
    )
    assert post == HOSTILE
    assert page.title() == title != "broken"
    assert page.locator("#result").locator("script, img, b, textarea").count() == 0


@pytest.mark.parametrize(
    "url", ["{}/a.png", "https://localhost/a.png", "https://169.254.169.254/", "file:///etc/passwd"]
)
def test_addresses_inside_are_refused(page, loopback, url):
    enter(page, **{"address": url.format(loopback.url)})
    press(page)
    assert re.search("only https:// URLs|is not on the public Internet", alert(page))
    assert loopback.fetched == []


def test_a_decompression_bomb_is_refused(page, bomb, tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb(9_000))
    enter(page, TEXT)
    page.locator("input[type=file]").set_input_files(tmp_path / "bomb.png")
    page.wait_for_timeout(3_000)
    press(page)
    assert "9000 × 9000 pixels, more than 25,000,000" in alert(page)


def test_by_keyboard_alone(page):
    page.get_by_label("Post", exact=True).focus()
    page.keyboard.type(TEXT)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == "Find aspects":
            break
    page.keyboard.press("Enter")
    page.locator("#result mark").first.wait_for()
    second = page.locator("#result details").nth(1)
    assert second.get_attribute("open") is None
    second.locator("summary").focus()
    page.keyboard.press("Enter")
    assert second.get_attribute("open") is not None


def test_an_example(page):
    page.get_by_role("button", name="Bread: charged").click()
    page.wait_for_function("document.querySelector('textarea').value.startsWith('Bread: charged. Butter')")
    press(page)
    page.locator("#result .post").wait_for()
    assert "Brasserie Tilhorst" in page.locator("#result .post").inner_text()


def test_a_large_model_writes_rationales(page, picture, loopback):
    loopback.asked.clear()
    enter(page, TEXT, picture)
    page.get_by_role("button", name="Have large-model write them").click()
    field = page.get_by_label(re.compile("picture rationale", re.IGNORECASE))
    page.wait_for_function("document.querySelectorAll('textarea')[2].value != ''")
    assert field.input_value().endswith("is so great . <b>1</b>")
    assert len(loopback.asked) == 2 and {asked["model"] for asked in loopback.asked} == {"large-model"}
    press(page)
    page.locator("#result .rationale").first.wait_for()


def test_the_api_fetches_nothing_from_inside(address, loopback):
    straight = build_opener(ProxyHandler({}))
    for url in (f"{loopback.url}/a.png", "file:///etc/passwd", "/etc/passwd", "http://localhost/"):
        file = {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"data": [TEXT, file, "", "", ""]}).encode()
        request = Request(f"{address}/gradio_api/call/find", body, {"Content-Type": "application/json"})
        call = json.load(straight.open(request))["event_id"]
        answer = straight.open(f"{address}/gradio_api/call/find/{call}").read().decode()
        assert "event: error" in answer and "root:" not in answer
    assert loopback.fetched == []
