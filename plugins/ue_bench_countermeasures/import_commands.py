"""``ue-bench purifier import``: released weights as files of this program. What is heavy is imported inside."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from ue_bench.api import EnvironmentProblem, UserError, check_file, check_output

FILES = {"comdefend": 2, "le-jcdp": 1, "eclipse": 1, "imagenet256": 1, "avatar": 1}


@click.command("import")
@click.argument("form", metavar="FORMAT", type=click.Choice(list(FILES)))
@click.argument("sources", metavar="FILE...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="New folder; for comdefend a new file NAME.safetensors.")  # fmt: skip
def import_weights(form: str, sources: tuple[Path, ...], out: Path) -> None:
    """Convert weights that the authors of a purifier released, as they lie in their files.

    FORMAT is comdefend (enc20_0.0001.npy and dec20_0.0001.npy), le-jcdp (ckpt_*.pth), eclipse (ema_0.9999_250000.pt),
    imagenet256 (256x256_diffusion_uncond.pt of guided diffusion) or avatar (checkpoint_8.pth of score-based models,
    which DiffPure has too). Nothing in a file is run; every weight must have a place, and every place a weight. The
    digest of the source is kept. Use the result with comdefend[weights=OUT], le-jcdp[model=OUT], eclipse[model=OUT], or
    avatar[model=OUT,reverse=vp-sde].

    \b
    ue-bench purifier import comdefend enc20_0.0001.npy dec20_0.0001.npy --out comdefend.safetensors
    """
    if len(sources) != FILES[form]:
        raise UserError(f"{form} comes in {FILES[form]} files, not {len(sources)}", "'ue-bench purifier import --help'")
    for source in sources:
        check_file(source)
    digests = {source.name: _sha256(source) for source in sources}
    record: dict[str, Any] = {"format": form, "sources": digests}
    if form == "comdefend":
        _comdefend(sources, out, record, list(digests.values()))
    else:
        _diffusion(sources[0], out, record)
    print(out)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _comdefend(sources: tuple[Path, ...], out: Path, record: dict[str, Any], digests: list[str]) -> None:
    check_output(out, ".safetensors")
    from .comdefend_import import RELEASED, convert
    from .comdefend_training import write

    network = convert(sources[0], sources[1])
    known = [digest.startswith(start) for digest, start in zip(digests, RELEASED.values(), strict=True)]
    click.echo("the authors' files" if all(known) else "not the authors' files: other digests", err=True)
    write(out, network, {**record, "released": all(known)})


def _diffusion(source: Path, out: Path, record: dict[str, Any]) -> None:
    if out.exists():
        raise UserError(f"{out} exists already", "remove it or choose another --out")
    from .diffusion.importing import convert, read, write

    converted = convert(read(source), record["format"])
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=f"{out.name}.", dir=out.absolute().parent))
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {out}: {error.strerror}", "choose another --out") from error
    try:
        made = write(converted, unfinished / "model", record)
        (unfinished / "model").rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    click.echo(f"{made['parameters']:,} parameters, checksum {made['checksum']}", err=True)
