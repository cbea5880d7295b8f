"""``ue-bench protect``: protect a folder of images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

from .common import cache_option, data_dir_option, json_option, precision_option, print_json, say

LISTED = 50  # names that are printed; the record has them all


@click.command("protect")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("-P", "--protector", required=True, help="Selector of the protector.")
@click.option("--labels", type=click.Path(path_type=Path), help="File of labels, where classes have no folders.")
@click.option("--size", type=click.IntRange(4, 4096), help="Bring all images to squares of this side first.")
@click.option("--format", "kind", type=click.Choice(["png", "jpeg"]), default="png", show_default=True,
              help="Format of the protected files; JPEG undoes much of the protection.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), help="Seed of everything random; drawn and recorded by default.")
@click.option("--key", type=click.Path(path_type=Path), help="Key file to write; OUT.key.safetensors by default.")
@click.option("--record", type=click.Path(path_type=Path), help="Record file to write; OUT.record.json by default.")
@click.option("--lossless", is_flag=True, help="Keep in the key what recovery would miss.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@click.option("--device", default="auto", show_default=True, help="Device to compute on, such as cuda:0 or cpu.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; as many as cores by default.")
@precision_option
@data_dir_option
@cache_option
@json_option
def command(
    source: Path,
    out: Path,
    protector: str,
    labels: Path | None,
    size: int | None,
    kind: Literal["png", "jpeg"],
    seed: int | None,
    key: Path | None,
    record: Path | None,
    lossless: bool,
    force: bool,
    device: str,
    threads: int | None,
    precision: str,
    data_dir: Path | None,
    cache_dir: Path | None,
    as_json: bool,
) -> int:
    """Protect a folder of images.

    IN holds one folder a class, or images and a file of labels. OUT becomes a folder of PNG files of the same names.
    Beside it, not for publication: a record, and for protectors that can be undone the key for 'ue-bench recover'.

    Interrupted, the command continues when it is given again. Images that cannot be protected are named, and the exit
    code is then 1.

    \b
    ue-bench protect --protector deephiding photos protected
    """
    from ..owner import audit, files, protecting
    from ..owner.request import make_request
    from ..progress import ProgressLine

    if kind == "jpeg":
        say("ue-bench: JPEG changes every image once more, and with it undoes much of the protection")
    request = make_request(
        protector, source, out, record=record, key=key, labels=labels, kind=kind, size=size, seed=seed,
        lossless=lossless, force=force, device=device, threads=threads, precision=precision, cache_dir=cache_dir,
        data_dir=data_dir,
    )  # fmt: skip
    with files.alone(request.out, cache_dir):
        written = protecting.protect(request, ProgressLine(sys.stderr))
    if as_json:
        print_json(written)
    else:
        print(_text(written, request))
    name_failed(written["failed"], written["images"], "protected")
    name_ignored(written["ignored"])
    if written["measured"] and audit.exceeds(written["measured"]["declared"], written["measured"]):
        declared = written["measured"]["declared"]
        say(f"ue-bench: these images changed more than {request.protector.name} declares, {declared}")
    return 1 if written["failed"] else 0


def name_failed(failed: dict[str, str], images: int, done: str) -> None:
    """Print which images were not ``done``, and why."""
    if not failed:
        return
    say(f"ue-bench: {len(failed):,} of {images:,} images were not {done}:")
    for name, reason in list(failed.items())[:LISTED]:
        say(f"  {name}: {reason}")
    if len(failed) > LISTED:
        say(f"  and {len(failed) - LISTED:,} more")


def name_ignored(ignored: list[str]) -> None:
    """Print which files are no images."""
    if ignored:
        say(f"ue-bench: {len(ignored):,} other files were left: {', '.join(ignored[:5])}")


def _text(written: dict[str, Any], request: Any) -> str:
    """Return a summary of the record."""
    lines = [f"{request.out}: {len(written['files']):,} images protected by {written['settings']['selector']}"]
    m = written["measured"]
    if m:
        psnr = "unchanged" if m["psnr"] is None else f"PSNR {m['psnr']:.1f} dB"
        lines.append(f"Linf {m['linf_max']}/255 at most, {psnr}, SSIM {m['ssim']:.3f}; declared: {m['declared']}")
    r = written["recovery"]
    if r:
        psnr = "" if r["psnr_of_others"] is None else f", the others at {r['psnr_of_others']:.1f} dB"
        stored = f"; what is missing of {r['stored']:,} is in the key" if r["stored"] else ""
        lines.append(f"recovery: {r['exact']:,} images exactly{psnr}{stored}")
        if r["stored"]:
            lines[-1] += f" ({r['bits_per_pixel']:.2f} bits a pixel)"
        if r["lost"]:
            shown = ", ".join(r["lost"][:5])
            lines.append(f"not to be recovered: {len(r['lost']):,}, such as {shown}; with --lossless they would be")
        lines.append(f"key: {request.key}")
    lines.append(f"record: {request.record}")
    return "\n".join(lines)
