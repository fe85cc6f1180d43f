"""Headless Chromium for tests, driven over the DevTools protocol through two pipes.

Nothing to install beside the browser: the protocol is JSON, one NUL-ended message each, on file
descriptors 3 (to the browser) and 4 (from it).
"""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ANSWER_S: Final = 30.0
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--mute-audio",
    "--lang=zh-CN",
    "--remote-debugging-pipe",
)


def find() -> str | None:
    """Where Chromium is, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class BrowserError(Exception):
    """The browser refused a command, or a script in the page threw."""


class Browser:
    """A running browser with a profile of its own. Use as a context manager."""

    def __init__(self, profile: Path, flags: Sequence[str] = ()) -> None:
        executable = find()
        if executable is None:
            raise BrowserError("chromium is not installed")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The shell puts the pipes where the protocol wants them; high numbers never collide.
        high = [os.dup2(fd, 90 + n) for n, fd in enumerate((to_browser, from_browser))]
        for fd in (to_browser, from_browser):
            os.close(fd)
        # The browser's own environment: its proxies would be asked for every page otherwise.
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        command = [executable, *_FLAGS, f"--user-data-dir={profile}", *flags, "about:blank"]
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", 'exec "$@" 3<&90 4>&91 90<&- 91>&-', "chromium", *command],
            pass_fds=high,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for fd in high:
            os.close(fd)
        self._ids = itertools.count(1)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._listeners: list[Callable[[dict[str, Any]], None]] = []
        self._reader = threading.Thread(target=self._pump, daemon=True)
        self._reader.start()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(BrowserError, OSError):
            self.send("Browser.close", timeout_s=5)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._write)
        self._reader.join(timeout=5)
        os.close(self._read)

    def _pump(self) -> None:
        rest = b""
        while chunk := os.read(self._read, 1 << 20):
            *messages, rest = (rest + chunk).split(b"\0")
            for raw in messages:
                message = json.loads(raw)
                answer = self._answers.pop(message.get("id", 0), None)
                if answer is not None:
                    answer.put(message)
                else:
                    for listener in self._listeners:
                        listener(message)

    def send(
        self,
        method: str,
        parameters: dict[str, Any] | None = None,
        session: str | None = None,
        timeout_s: float = ANSWER_S,
    ) -> dict[str, Any]:
        """The browser's answer to a command."""
        return self.post(method, parameters, session)(timeout_s)

    def post(
        self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None
    ) -> Callable[[float], dict[str, Any]]:
        """Send a command without waiting; what comes back waits for its answer."""
        [answer] = self.post_all([(method, parameters or {})], session)
        return answer

    def post_all(
        self, commands: Sequence[tuple[str, dict[str, Any]]], session: str | None = None
    ) -> list[Callable[[float], dict[str, Any]]]:
        """Send commands in one go, so that nothing delays one after another."""
        data = bytearray()
        answers: list[Callable[[float], dict[str, Any]]] = []
        for method, parameters in commands:
            message: dict[str, Any] = {
                "id": next(self._ids),
                "method": method,
                "params": parameters,
            }
            if session:
                message["sessionId"] = session
            waiting: queue.Queue[dict[str, Any]] = queue.Queue()
            self._answers[message["id"]] = waiting
            answers.append(functools.partial(_answer, method, waiting))
            data += json.dumps(message).encode() + b"\0"
        while data:
            del data[: os.write(self._write, data)]
        return answers

    def page(self, width: int = 1280, height: int = 800, *, touch: bool = False) -> Page:
        """A new tab of that size."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, target, attached["sessionId"])
        self._listeners.append(page.heard)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        return page


def _answer(method: str, waiting: queue.Queue[dict[str, Any]], timeout_s: float) -> dict[str, Any]:
    try:
        answered = waiting.get(timeout=timeout_s)
    except queue.Empty:
        raise BrowserError(f"{method} was not answered in {timeout_s} s") from None
    if "error" in answered:
        raise BrowserError(f"{method}: {answered['error'].get('message')}")
    result: dict[str, Any] = answered["result"]
    return result


class Page:
    """One tab.

    Attributes:
        requests: every URL that it asked for and its own policy let pass.
        complaints: exceptions and errors from its console, as text.
    """

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self._asked: dict[str, str] = {}
        self.complaints: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.send(method, parameters, self._session)

    @property
    def requests(self) -> list[str]:
        return list(self._asked.values())

    def heard(self, message: dict[str, Any]) -> None:
        if message.get("sessionId") != self._session:
            return
        match message:
            case {"method": "Network.requestWillBeSent", "params": {"requestId": asked} as sent}:
                self._asked[asked] = sent["request"]["url"]
            case {
                "method": "Network.loadingFailed",
                "params": {"requestId": asked, "blockedReason": "csp"},
            }:
                self._asked.pop(asked, None)
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.complaints.append(json.dumps(details))
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error"} as entry}}:
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    def open(self, url: str, ready: str = "'started' in document.body.dataset") -> None:
        """Load `url` and wait until the expression `ready` is true."""
        self.send("Page.navigate", url=url)
        self.wait(
            f"document.readyState === 'complete' && location.href !== 'about:blank' && {ready}"
        )

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, expression: str, timeout_s: float = 10.0) -> Any:
        """Poll until `expression` is truthy, and return its value."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(BrowserError):
                if value := self.run(expression):
                    return value
            if time.monotonic() > deadline:
                raise BrowserError(f"still not true after {timeout_s} s: {expression}")
            time.sleep(0.03)

    def choose_file(self, selector: str, path: Path) -> None:
        """Hand a file to an <input type=file>, as a person does in the dialog."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def type(self, text: str) -> None:
        """Press a key for each character as a scanner does, 5 ms apart; \\n is Enter.

        The times are those of the keys' own clock, so a busy machine does not slow the scanner.
        """
        commands: list[tuple[str, dict[str, Any]]] = []
        begun = time.time()
        for number, character in enumerate(text):
            key = {"\n": "Enter", "\t": "Tab", "\x1b": "Escape"}.get(character, character)
            event: dict[str, Any] = {"key": key, "timestamp": begun + number * 0.005}
            if key == "Enter":
                event |= {"text": "\r", "code": "Enter", "windowsVirtualKeyCode": 13}
            elif key == "Tab":
                event |= {"code": "Tab", "windowsVirtualKeyCode": 9}
            elif len(key) == 1:
                event["text"] = key
            released = {name: value for name, value in event.items() if name != "text"}
            commands.append(("Input.dispatchKeyEvent", {"type": "keyDown", **event}))
            commands.append(("Input.dispatchKeyEvent", {"type": "keyUp", **released}))
        for answer in self._browser.post_all(commands, self._session):
            answer(ANSWER_S)

    def screenshot(self, path: Path) -> None:
        picture = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(picture))

    def close(self) -> None:
        self._browser.send("Target.closeTarget", {"targetId": self._target})


@contextlib.contextmanager
def running(profile: Path, *flags: str) -> Iterator[Browser]:
    with Browser(profile, flags) as browser:
        yield browser
