"""A page of headless Chromium, driven over its DevTools protocol: real keys, real focus, pictures of what is seen."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KEYS = {"Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Enter": 13, " ": 32}


class Page:
    """One tab. Every wait polls, and names what did not come."""

    def __init__(self, address: str):
        self._socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        self._numbers = itertools.count(1)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            reply = json.loads(self._socket.recv())
            if reply.get("id") == number:
                assert "error" not in reply, f"{method}: {reply.get('error')}"
                return reply["result"]

    def js(self, code: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        reply = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait(self, code: str, seconds: float = 120) -> Any:
        """Until the expression is true; gives its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.js(code):
                return value
            time.sleep(0.2)
        raise AssertionError(f"never true in {seconds:.0f} s: {code}")

    def press(self, key: str) -> None:
        """A key, as from a keyboard."""
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        text = {" ": " ", "Enter": "\r"}.get(key, "")
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, path: Path, box: dict[str, float] | None = None) -> None:
        """A PNG of the page, or of a box (x, y, width, height) of it."""
        clip = {"clip": {**box, "scale": 1}} if box else {}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, **clip)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def open_page(url: str, profile: Path, size: tuple[int, int] = (1280, 900)) -> Iterator[Page]:
    """A new browser on ``url``; gone afterwards."""
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}",
        url,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ}
    )
    try:
        page = Page(_address(profile, process))
        try:
            yield page
        finally:
            page._socket.close()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the tab listens: Chromium writes its port into its profile once it is ready."""
    port_file, end = profile / "DevToolsActivePort", time.monotonic() + 90
    while time.monotonic() < end:
        assert process.poll() is None, "Chromium ended before it was ready"
        with contextlib.suppress(OSError, IndexError, StopIteration):
            port = port_file.read_text(encoding="utf-8").split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as reply:
                tabs = json.loads(reply.read())
            return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        time.sleep(0.2)
    raise AssertionError("Chromium did not open its DevTools port")
