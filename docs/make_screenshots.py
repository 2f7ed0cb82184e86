"""The pictures of the page in docs/images, taken from a running server whose history holds finished models.

    anyform serve &
    python docs/make_screenshots.py http://127.0.0.1:7860/

Takes the newest finished models there are (two for the comparison) and makes none itself. Needs playwright and a
Chromium on PATH (the extra dev).
"""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
WEBGL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
FIXTURE = Path(__file__).parents[1] / "fixtures" / "image_plain.png"


def finished(url: str) -> list[str]:
    """Ids of finished jobs, newest first."""
    with urllib.request.urlopen(f"{url}v1/jobs?state=done&limit=50") as answer:
        return [job["id"] for job in json.load(answer)["jobs"]]


def opened(browser: Browser, address: str, models: int, **options: Any) -> Page:
    """A tab in which that many models are drawn."""
    page = browser.new_context(reduced_motion="reduce", **options).new_page()
    page.set_default_timeout(180_000)
    page.goto(address)
    page.get_by_role("button", name="Generate").wait_for()
    for index in range(models):
        page.locator("#stage .viewer-frame").nth(index).wait_for()
    page.wait_for_timeout(1500)
    return page


def shoot(page: Page, name: str, full: bool = False) -> None:
    """One picture as WebP; the tab closes."""
    raw = IMAGES / f"{name}.png"
    page.screenshot(path=raw, full_page=full)
    with Image.open(raw) as image:
        image.convert("RGB").save(IMAGES / f"{name}.webp", quality=86, method=6)
    raw.unlink()
    page.context.close()
    print(IMAGES / f"{name}.webp", flush=True)


def mask(page: Page) -> None:
    """The mask editor with the bundled picture."""
    page.get_by_role("tab", name="Picture").click()
    page.set_input_files("#file-image", str(FIXTURE))
    page.locator(".editor canvas").wait_for()
    page.wait_for_timeout(800)


def main(url: str) -> int:
    """Takes all pictures. Returns 2 where the server has nothing to show or there is no browser."""
    jobs = finished(url)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if len(jobs) < 2 or chromium is None:
        print(f"two finished models and a Chromium are needed: {len(jobs)} models, browser {chromium}", file=sys.stderr)
        return 2
    IMAGES.mkdir(exist_ok=True)
    wide, small = {"width": 1360, "height": 940}, {"width": 360, "height": 780}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=WEBGL)
        shoot(opened(browser, f"{url}#job={jobs[0]}", 1, viewport=wide), "page", full=True)
        shoot(
            opened(browser, f"{url}#compare={jobs[0]},{jobs[1]}", 2, viewport=wide, color_scheme="dark"), "page-compare"
        )
        page = opened(browser, f"{url}#job={jobs[1]}", 1, viewport=wide)
        mask(page)
        shoot(page, "page-mask")
        shoot(opened(browser, f"{url}#job={jobs[0]}", 1, viewport=small), "page-phone", full=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860/"))
