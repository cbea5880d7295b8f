"""``ue-bench reveal`` and ``ue-bench deephiding logos``. Everything heavy is imported inside the commands."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ue_bench.api import (
    ProgressLine,
    UserError,
    device_option,
    first_line,
    folder_options,
    replacing,
    usable_device,
)

from .command_tools import begin, not_below

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORD = "reveal.json"
MATCHES = "matches.csv"

weights_option = click.option(
    "--weights", type=click.Path(path_type=Path),
    help="Hiding network, a .safetensors file; the shipped one unless given.",
)  # fmt: skip


@click.command("reveal")
@click.argument("protected", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--logos", type=click.Path(path_type=Path),
              help="Folder of images: say which of them each image hides.")  # fmt: skip
@weights_option
@device_option
@click.pass_context
def reveal(
    ctx: click.Context, protected: Path, out: Path, logos: Path | None, weights: Path | None, device: str
) -> None:
    """Show what Deep Hiding hid in images.

    PROTECTED is an image or a folder of images, OUT a folder for what they hide, NAME.png for every NAME.
    With --logos, OUT/matches.csv names the most similar logo of each image, with its normalised cross-correlation.

    The images must have the size at which they were protected. Interrupted, the command continues when it is given
    again. Images that cannot be read are named at the end, and the exit code is then 1.

    \b
    ue-bench reveal protected revealed --logos logos
    """
    from PIL import Image

    from ue_bench.api import digest_path

    from . import banks
    from .networks import load_network
    from .reveal import revealed, similarity

    files = banks.image_files(protected)
    if not files:
        raise UserError(f"{protected} holds no image", f"looked for {', '.join(sorted(banks.SUFFIXES))}")
    not_below(out, protected)
    shelf = read_logos(logos) if logos else {}
    weights = weights_file(weights)
    device = usable_device(device)
    network = load_network(weights).to(device)
    begin(out, {"weights": digest_path(weights), "protected": digest_path(protected)}, RECORD)

    def uncovered(file: Path, target: Path) -> NDArray[np.uint8]:
        """Return what ``file`` hides, from ``target`` where it was written before."""
        image = banks.decode(banks.Picture(str(file), file), blend=False)  # hiding leaves transparency alone
        with contextlib.suppress(UserError):  # damaged: made again
            if target.exists():
                return banks.decode(banks.Picture(str(target), target))
        if min(image.shape[:2]) < 2:
            raise UserError(f"{file} is smaller than 2 x 2 pixels")
        hidden: NDArray[np.uint8] = revealed(network, image[None], device)[0]
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as unfinished:
            Image.fromarray(hidden).save(unfinished, "PNG")
        return hidden

    report = ProgressLine(sys.stderr)
    failed: list[str] = []
    rows: list[tuple[str, str, float]] = []
    try:
        for number, file in enumerate(files):
            relative = file.relative_to(protected) if protected.is_dir() else Path(file.name)
            try:
                hidden = uncovered(file, out / relative.parent / f"{relative.name}.png")
                if shelf:
                    scores = similarity(hidden[None], _stack(list(shelf.values()), hidden.shape[:2]))[0]
                    best = int(scores.argmax())
                    rows.append((relative.as_posix(), list(shelf)[best], float(scores[best])))
            except (UserError, MemoryError, RuntimeError) as error:  # torch raises RuntimeError without memory
                said = "" if isinstance(error, UserError) else f" ({first_line(error)})"
                failed.append(f"{relative}{said}")
            report(number + 1, len(files), "reveal")
        if shelf:
            _write_matches(out / MATCHES, rows)
    except OSError as error:
        raise UserError(f"cannot write in {out}: {error.strerror or error}", "the same command continues") from error
    for logo, count in Counter(logo for _, logo, _ in rows).most_common():
        scored = [score for _, name, score in rows if name == logo]
        print(f"{logo}: {count} images, mean correlation {sum(scored) / count:.2f}")
    print(out)
    if failed:
        shown = ", ".join(failed[:10]) + (f" and {len(failed) - 10} more" if len(failed) > 10 else "")
        print(f"ue-bench: {len(failed)} of {len(files)} images cannot be read: {shown}", file=sys.stderr)
        ctx.exit(1)


def _write_matches(path: Path, rows: list[tuple[str, str, float]]) -> None:
    with (
        replacing(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["image", "logo", "correlation"])
        writer.writerows((image, logo, f"{score:.4f}") for image, logo, score in rows)


def read_logos(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Read the logos of ``folder`` by their path in it. Raises UserError when they cannot be told apart."""
    from . import banks

    files = banks.image_files(folder)
    if len(files) < 2 or not folder.is_dir():
        raise UserError(f"{folder} holds {len(files)} images", "give a folder of at least two logos to choose from")
    by_path = {file.relative_to(folder).as_posix(): banks.decode(banks.Picture(str(file), file)) for file in files}
    seen: dict[bytes, str] = {}
    for name, small in zip(by_path, _stack(list(by_path.values()), (32, 32)), strict=True):
        if small.std(axis=(0, 1)).max() == 0:
            raise UserError(f"logo {name} is an even surface", "it cannot be recognised; remove it")
        first = seen.setdefault(small.tobytes(), name)
        if first != name:
            raise UserError(f"logos {first} and {name} are the same", "remove one")
    return by_path


def weights_file(given: Path | None) -> Path:
    """Return ``given``, or the shipped network. Raises UserError when there is no such file."""
    from . import protector

    if given and not given.is_file():
        raise UserError(f"no file {given}", "leave out --weights for the shipped network")
    return given or protector.SHIPPED


def _stack(pictures: list[NDArray[np.uint8]], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return logos at ``size``; an odd side is the even one in which they were hidden, less the last row or column."""
    import numpy as np

    from .banks import resized

    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    return np.stack([resized(p, even)[: size[0], : size[1]] for p in pictures])


@click.command("logos")
@click.option("-D", "--dataset", required=True, help="Images to mark: the training images of a dataset.")
@click.option("--images", type=click.IntRange(1), default=1000, show_default=True, help="The first so many.")
@click.option("--logos", "folder", type=click.Path(path_type=Path),
              help="Folder of logos; procedural ones unless given.")  # fmt: skip
@click.option("--count", type=click.IntRange(2), default=10, show_default=True, help="Procedural logos.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of procedural logos.")
@weights_option
@device_option
@folder_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def logos(
    dataset: str,
    images: int,
    folder: Path | None,
    count: int,
    seed: int,
    weights: Path | None,
    device: str,
    data_dir: Path | None,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure how well hidden logos are extracted again.

    Hides logos in turn in the images of a dataset, and extracts them from the network's output as it is, from 8-bit
    images, and after JPEG, blur and cropping.

    \b
    ue-bench deephiding logos -D cifar10 --images 1000
    """
    from dataclasses import asdict

    from tabulate import tabulate

    from ue_bench.api import open_dataset

    from . import banks
    from .networks import load_network
    from .reveal import extraction

    given = click.get_current_context().get_parameter_source
    if folder and any(given(n) is click.core.ParameterSource.COMMANDLINE for n in ("count", "seed")):
        raise UserError("--count and --seed are for procedural logos", "leave them out, or --logos")
    device = usable_device(device)
    network = load_network(weights_file(weights)).to(device)
    report = ProgressLine(sys.stderr)
    selector, data = open_dataset(dataset, "train", data_dir=data_dir, cache_dir=cache_dir, report=report)
    if data.size[0] % 2 or data.size[1] % 2:
        raise UserError(f"images of {selector} are {data.size[1]} x {data.size[0]}", "their sides must be even here")
    if len(data) < images:
        raise UserError(f"{selector} holds {len(data)} training images, not {images}", "give fewer --images")
    if folder:
        bank = _stack(list(read_logos(folder).values()), data.size)
    else:
        bank = banks.procedural(count, 1, data.size, seed)[:, 0]
    extractions = extraction(network, data.images[:images], bank, device, report)
    if as_json:
        record = {
            "dataset": selector,
            "images": images,
            "logos": len(bank),
            "results": [asdict(f) for f in extractions],
        }
        print(json.dumps(record, indent=1, allow_nan=False))
        return
    print(f"{len(bank)} logos in {images} images of {selector}")
    rows = [(f.channel, f"{f.psnr:.1f}", f"{f.ssim:.3f}", f"{100 * f.identified:.1f}") for f in extractions]
    headers = ["channel", "PSNR [dB]", "SSIM", "identified [%]"]
    print(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))
