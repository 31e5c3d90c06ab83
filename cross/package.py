#!/usr/bin/env python3
"""package.py ROOT VERSION OUT ARCHITECTURE...   makes an .ipk and an .apk for OpenWrt of the files in ROOT, for each architecture.

An .ipk is a tar of two tars, for opkg (OpenWrt up to 24.10). An .apk is two streams of gzip, control and data, where the control part
tells the digest of the data part and each file carries its own: the format that apk-tools reads since version 2 (OpenWrt from 25 on).
Both are not signed. The same input makes the same bytes. zopfli writes what gzip reads, two hundredths smaller.
"""
import functools
import gzip
import hashlib
import io
import os
import pathlib
import sys
import tarfile
import zlib

import zopfli.gzip

NAME = "specter-client"
DESCRIPTION = "Publishes services behind NAT through Specter's nodes"
LICENSE = "MIT OR Apache-2.0"
CONFIGURATION = ["/etc/config/specter", "/etc/specter/client.yaml"]
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "1700000000"))

INSTALL = """#!/bin/sh
[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0
. "${IPKG_INSTROOT}/lib/functions.sh"
"""
REMOVE = """#!/bin/sh
[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0
. "${IPKG_INSTROOT}/lib/functions.sh"
"""
APK_NAMES = f'export root="${{IPKG_INSTROOT}}"\nexport pkgname="{NAME}"\n'


# Packages for several architectures hold the same files.
@functools.cache
def pack(data: bytes) -> bytes:
    return zopfli.gzip.compress(data, numiterations=5, blocksplittingmax=60)


def entry(name: str, size: int, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.type = size, mode, EPOCH, kind
    info.uname = info.gname = "root"
    return info


def archive(files: dict[str, tuple[bytes, int]], prefix: str, digests: bool = False, end: bool = True) -> bytes:
    """A tar of files with the folders above them."""
    folders = sorted({str(parent) for name in files for parent in pathlib.PurePath(name).parents} - {"."})
    out = io.BytesIO()
    kind = tarfile.PAX_FORMAT if digests else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for folder in folders:
            tar.addfile(entry(prefix + folder, 0, 0o755, tarfile.DIRTYPE))
        for name, (data, mode) in sorted(files.items()):
            info = entry(prefix + name, len(data), mode)
            if digests:
                info.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(data).hexdigest()}
            tar.addfile(info, io.BytesIO(data))
        length = tar.offset
    # A tar that another follows has no end of its own.
    return out.getvalue() if end else out.getvalue()[:length]


def texts(files: dict[str, str], mode: int) -> dict[str, tuple[bytes, int]]:
    return {name: (text.encode(), mode) for name, text in files.items()}


def ipk(files: dict[str, tuple[bytes, int]], version: str, architecture: str) -> bytes:
    size = sum(len(data) for data, _ in files.values())
    control = (
        f"Package: {NAME}\nVersion: {version}-r1\nArchitecture: {architecture}\nSection: net\nLicense: {LICENSE}\n"
        f"Require-User: specter:specter\nInstalled-Size: {size}\nDescription: {DESCRIPTION}\n"
    )
    conffiles = "".join(f"{name}\n" for name in CONFIGURATION)
    scripts = {"postinst": INSTALL + "default_postinst $0 $@\n", "prerm": REMOVE + "default_prerm $0 $@\n"}
    parts = {
        "debian-binary": (b"2.0\n", 0o644),
        "data.tar.gz": (pack(archive(files, "./")), 0o644),
        "control.tar.gz": (
            pack(archive(texts({"control": control, "conffiles": conffiles}, 0o644) | texts(scripts, 0o755), "./")),
            0o644,
        ),
    }
    # What is inside is compressed already.
    return gzip.compress(archive(parts, "./"), 9, mtime=0)


def apk(files: dict[str, tuple[bytes, int]], version: str, architecture: str) -> bytes:
    # What OpenWrt's own scripts look up after an installation.
    lists = {
        f"lib/apk/packages/{NAME}.list": "".join(f"/{name}\n" for name in sorted(files)),
        f"lib/apk/packages/{NAME}.conffiles": "".join(f"{name}\n" for name in CONFIGURATION),
        f"lib/apk/packages/{NAME}.conffiles_static": "".join(
            f"{name} {hashlib.sha256(files[name[1:]][0]).hexdigest()}\n" for name in CONFIGURATION if name[1:] in files
        ),
        f"lib/apk/packages/{NAME}.rusers": "specter:specter\n",
    }
    files = files | texts(lists, 0o644)
    data = pack(archive(files, "", digests=True))
    size = sum(len(content) for content, _ in files.values())
    info = (
        f"pkgname = {NAME}\npkgver = {version}-r1\npkgdesc = {DESCRIPTION}\nurl = \nbuilddate = {EPOCH}\n"
        f"packager = \nsize = {size}\narch = {architecture}\norigin = {NAME}\nlicense = {LICENSE}\n"
        f"datahash = {hashlib.sha256(data).hexdigest()}\n"
    )
    install = INSTALL + APK_NAMES + "add_group_and_user\ndefault_postinst\n"
    scripts = {
        ".post-install": install,
        ".post-upgrade": install.replace("\n", "\nexport PKG_UPGRADE=1\n", 1),
        ".pre-deinstall": REMOVE + APK_NAMES + "default_prerm\n",
    }
    control = archive(texts({".PKGINFO": info}, 0o644) | texts(scripts, 0o755), "", digests=True, end=False)
    return pack(control) + data


def members(data: bytes) -> dict[str, bytes]:
    """What a compressed tar holds, read as another program would."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        found = {}
        for info in tar:
            name = info.name.removeprefix("./")
            assert not name.startswith(("/", "..")) and info.uid == info.gid == 0 and info.mode & 0o022 == 0, name
            if info.isfile():
                found[name] = tar.extractfile(info).read()
        return found


def check(files: dict[str, tuple[bytes, int]], made_ipk: bytes, made_apk: bytes) -> None:
    expected = {name: data for name, (data, _) in files.items()}
    outer = members(made_ipk)
    assert outer["debian-binary"] == b"2.0\n"
    assert members(outer["data.tar.gz"]) == expected
    assert set(members(outer["control.tar.gz"])) == {"control", "conffiles", "postinst", "prerm"}

    # Two streams of gzip, of which the first tells the digest of the second, and together one tar.
    stream = zlib.decompressobj(wbits=31)
    control = stream.decompress(made_apk)
    data = stream.unused_data
    digest = hashlib.sha256(data).hexdigest()
    assert f"datahash = {digest}\n".encode() in control
    together = members(made_apk)
    assert {name: together[name] for name in expected} == expected
    assert {".PKGINFO", ".post-install", f"lib/apk/packages/{NAME}.rusers"} <= set(together)


def main() -> None:
    root, version, out, *architectures = sys.argv[1:]
    files = {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(pathlib.Path(root).rglob("*"))
        if path.is_file()
    }
    for architecture in architectures:
        made = ipk(files, version, architecture), apk(files, version, architecture)
        check(files, *made)
        for package, ending in zip(made, ("ipk", "apk")):
            path = pathlib.Path(out, f"{NAME}_{version}-r1_{architecture}.{ending}")
            path.write_bytes(package)
            print(path)


main()
