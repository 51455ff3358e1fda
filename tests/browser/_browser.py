# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A headless Chromium, and what the tests ask of it."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

_SWITCHES = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    # The browser's own requests, which have nothing to do with a page.
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
)


class Browser:
    """:param profile: an empty folder"""

    def __init__(self, chromium: str, driver: str, profile: Path) -> None:
        options = Options()
        options.binary_location = chromium
        for switch in (*_SWITCHES, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self._driver = webdriver.Chrome(options=options, service=Service(driver))

    def close(self) -> None:
        self._driver.quit()

    def reset(self) -> None:
        self.command("Emulation.setScriptExecutionDisabled", value=False)
        self._driver.get("about:blank")
        self.screen()
        self.media()
        self.complaints()
        self._driver.get_log("performance")

    def command(self, name: str, **parameters: Any) -> Any:
        """Of the Chrome DevTools Protocol."""
        return self._driver.execute_cdp_cmd(name, parameters)

    def screen(self, width: int = 1280, height: int = 900) -> None:
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def media(self, media: str = "screen", **features: str) -> None:
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in {"prefers_color_scheme": "light", **features}.items()]
        self.command("Emulation.setEmulatedMedia", media=media, features=given)

    def open(self, page: Path | str) -> None:
        self._driver.get(page.as_uri() if isinstance(page, Path) else page)

    def complaints(self) -> list[str]:
        """What the console was told since the last time, violations of the page's policy included."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses of what was asked for since the last time, and went out."""
        messages = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        stopped = {m["params"]["requestId"] for m in messages if m["method"] == "Network.loadingFailed" and "blockedReason" in m["params"]}
        asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in asked if params["requestId"] not in stopped]

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function's body, and return what it returns."""
        return self._driver.execute_script(script, *arguments)

    def wait(self, script: str) -> Any:
        """Run a function's body until it returns something, for ten seconds at most."""
        return WebDriverWait(self._driver, 10).until(lambda dummy: self.run(script))

    def brightness(self, x: float, y: float) -> float:
        """Of one point of what is on the screen, from 0 (black) to 1 (white)."""
        clip = {"x": x, "y": y, "width": 1, "height": 1, "scale": 1}
        png = self.command("Page.captureScreenshot", clip=clip)["data"]
        script = """
        const picture = new Image(); picture.src = "data:image/png;base64," + arguments[0]; await picture.decode();
        const canvas = document.createElement("canvas").getContext("2d"); canvas.drawImage(picture, 0, 0);
        const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data; return (r + g + b) / 765;
        """
        return float(self.run(script, png))

    def all(self, selector: str) -> list[WebElement]:
        return self._driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self._driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Rendered text of each, in one go however many there are."""
        texts: list[str] = self.run("return Array.from(document.querySelectorAll(arguments[0]), (found) => found.innerText.trim())", selector)
        return texts

    def press(self, *keys: str) -> None:
        """On the keyboard, wherever the focus is."""
        self._driver.switch_to.active_element.send_keys(*keys)

    def tab_to(self, selector: str) -> None:
        """Reach it with the keyboard alone."""
        for dummy in range(50):
            if self.run("return document.activeElement.matches(arguments[0])", selector):
                return
            webdriver.ActionChains(self._driver).send_keys(Keys.TAB).perform()
        raise AssertionError(f"{selector} cannot be reached with the tabulator key")

    def print(self) -> bytes:
        """A PDF of the page on A4."""
        return base64.b64decode(self.command("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
