"""A few calls of the W3C WebDriver protocol (https://www.w3.org/TR/webdriver2/), standard library only."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from ports import reserve_port

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
SLOWDOWN = float(os.environ.get("DSPARK_TEST_SLOWDOWN", "1"))
KEYS = {"tab": "\ue004", "enter": "\ue007", "shift": "\ue008", "escape": "\ue00c", "end": "\ue010", "home": "\ue011",
        "left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015"}


def available():
    return shutil.which("chromedriver") is not None and shutil.which("chromium") is not None


class Browser:
    """A headless Chromium with a profile of its own."""

    def __init__(self, width=1200, height=900):
        self.reserved, self.port = reserve_port()
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.driver = subprocess.Popen(["chromedriver", f"--port={self.port}", "--log-level=SEVERE"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.session = ""
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     f"--window-size={width},{height}", f"--user-data-dir={self.profile.name}"]
        deadline = time.monotonic() + 60 * SLOWDOWN
        while True:
            try:
                answer = self._call("POST", "session", {"capabilities": {"alwaysMatch": {
                    "browserName": "chrome", "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": arguments},
                    "goog:loggingPrefs": {"browser": "ALL"}}}})
                break
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    self.close()
                    raise
                time.sleep(0.2)
        self.session = f"session/{answer['sessionId']}/"

    def close(self):
        if self.session:
            try:
                self._call("DELETE", self.session.rstrip("/"))
            except (urllib.error.URLError, ConnectionError):
                pass
        self.driver.terminate()
        self.driver.wait(20)
        self.reserved.close()
        self.profile.cleanup()

    def _call(self, method, path, body=None):
        data = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data=data, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120 * SLOWDOWN) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode(errors='replace')[:400]}") from None

    def open(self, url):
        self._call("POST", self.session + "url", {"url": url})

    def run(self, script, *arguments):
        return self._call("POST", self.session + "execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector):
        return self._call("POST", self.session + "element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self._call("POST", f"{self.session}element/{self.find(selector)}/click")

    def type(self, selector, text):
        self._call("POST", f"{self.session}element/{self.find(selector)}/value", {"text": text})

    def key(self, *names):
        """Presses the keys together: the last with the others held."""
        down = [{"type": "keyDown", "value": KEYS[name]} for name in names]
        up = [{"type": "keyUp", "value": KEYS[name]} for name in reversed(names)]
        self._call("POST", self.session + "actions", {"actions": [{"type": "key", "id": "k", "actions": down + up}]})

    def hover(self, selector):
        origin = {ELEMENT: self.find(selector)}
        self._call("POST", self.session + "actions", {"actions": [{"type": "pointer", "id": "p", "actions": [
            {"type": "pointerMove", "duration": 0, "origin": origin, "x": 0, "y": 0}]}]})

    def resize(self, width, height):
        self._call("POST", self.session + "window/rect", {"width": width, "height": height})

    def phone(self, width, height):
        """A touch screen of that size: windows themselves cannot be that narrow."""
        self._cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=True)
        self._cdp("Emulation.setTouchEmulationEnabled", enabled=True)

    def prefer(self, scheme):
        """What the system says about colours: dark, light, or "" for nothing."""
        self._cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}] if scheme else [])

    def no_phone(self):
        self._cdp("Emulation.clearDeviceMetricsOverride")
        self._cdp("Emulation.setTouchEmulationEnabled", enabled=False)

    def _cdp(self, command, **parameters):
        self._call("POST", self.session + "goog/cdp/execute", {"cmd": command, "params": parameters})

    def tap(self, selector):
        origin = {ELEMENT: self.find(selector)}
        self._call("POST", self.session + "actions", {"actions": [
            {"type": "pointer", "id": "t", "parameters": {"pointerType": "touch"}, "actions": [
                {"type": "pointerMove", "duration": 0, "origin": origin, "x": 0, "y": 0},
                {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]}]})

    def text(self, selector):
        return self.run("const n = document.querySelector(arguments[0]); return n ? n.textContent : null", selector)

    def visible(self, selector):
        return self.run("const n = document.querySelector(arguments[0]); return !!n && n.getClientRects().length > 0", selector)

    def wait(self, what, script, *arguments, seconds=60):
        """Until the script returns something true."""
        deadline = time.monotonic() + seconds * SLOWDOWN
        while time.monotonic() < deadline:
            value = self.run(script, *arguments)
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"waited {seconds} s for {what}")

    def errors(self):
        """Messages of the console at level SEVERE (exceptions, refused requests)."""
        log = self._call("POST", self.session + "se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def screenshot(self, path):
        with open(path, "wb") as out:
            out.write(base64.b64decode(self._call("GET", self.session + "screenshot")))
