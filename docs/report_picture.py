"""Take pictures of a report in Chromium: wide and narrow, light and dark; and the small one that the README shows.

python docs/report_picture.py runs/quickstart/version_0/report.html pictures --small docs/report.png
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

#: Name of a picture, width of the screen, theme.
SCREENS = [
    ("wide_light", 1280, "light"),
    ("wide_dark", 1280, "dark"),
    ("phone_light", 360, "light"),
    ("phone_dark", 360, "dark"),
]

#: Width of the small picture in pixels, and the number of its colours.
SMALL, COLOURS = 960, 256

#: What the small picture leaves out: it shows the scores, some curves, and of the lists two of middling precision.
SHORTEN = """() => {
  const left = "#charts h3, #charts .wide, #charts > p, #about, #roc, #training, #theme";
  for (const part of document.querySelectorAll(left)) part.remove();
  for (const row of [...document.querySelectorAll("#scores tbody tr")].slice(2)) row.remove();
  const lists = [...document.querySelectorAll("#lists-1 li")], middle = Math.floor(0.8 * lists.length);
  lists.forEach((item, place) => { if (place !== middle && place !== lists.length - 2) item.remove(); });
}"""


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="the report")
    parser.add_argument("folder", type=Path, help="folder of the pictures")
    parser.add_argument("--small", type=Path, help="also write one small picture to this .png file")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, width, scheme in SCREENS:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.goto(arguments.page.resolve().as_uri())
            page.screenshot(path=arguments.folder / f"{name}.png", full_page=True)
        if arguments.small is not None:
            page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
            page.goto(arguments.page.resolve().as_uri())
            write_small(page, arguments.small)
        browser.close()


def write_small(page: Page, path: Path) -> None:
    """Write a picture of the shortened page, with few colours."""
    page.evaluate(SHORTEN)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture = picture.resize((SMALL, round(picture.height * SMALL / picture.width)), Image.Resampling.LANCZOS)
    picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
