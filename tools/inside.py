"""What is inside archives, images and databases, so that two of them that differ in their bytes can be compared.

`opened` makes a directory of such a file: its members or files as they are, with owners, modes, times and attributes, and
beside them texts of what else it says: the order of its members, a partition table, a superblock.
"""

import contextlib
import gzip
import json
import lzma
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import tarfile
import zipfile

FILES = "files"


def tool(*command, **more):
    """What a tool says, in a language that does not depend on the machine."""
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment, **more)
    return done.stdout.decode(errors="replace")


@contextlib.contextmanager
def opened(path, target):
    """A directory of what is inside a file, made in `target`, or None where it holds nothing that could be shown."""
    opener = kind(path)
    if not opener:
        yield None
        return
    (target / FILES).mkdir(parents=True)
    try:
        opener(path, target)
        yield target
    finally:
        if os.path.ismount(target / FILES):
            tool("umount", target / FILES)


def kind(path):
    """The function that opens such a file."""
    with path.open("rb") as file:
        start = file.read(1 << 17)
    at = lambda offset, magic: start[offset:offset + len(magic)] == magic
    for opener, found in (
        (compressed, at(0, b"\x1f\x8b") or at(0, b"\xfd7zXZ")),
        (tar, at(257, b"ustar")),
        (cpio, at(0, b"070701") or at(0, b"070707") or at(0, b"070702")),
        (zip_archive, at(0, b"PK\x03\x04")),
        (qemu, at(0, b"QFI\xfb") or at(0, b"KDMV")),
        (ext4, at(1080, b"\x53\xef")),
        (xfs, at(0, b"XFSB")),
        (erofs, at(1024, b"\xe2\xe1\xf5\xe0")),
        (iso9660, at(0x8001, b"CD001")),
        (luks, at(0, b"LUKS\xba\xbe\x00\x02")),
        (verity, at(0, b"verity\0\0")),
        (database, at(0, b"SQLite format 3\0")),
        (fat, at(54, b"FAT") or at(82, b"FAT32")),
        (disk, at(510, b"\x55\xaa")),
    ):
        if found:
            return opener
    return None


def compressed(path, target):
    """One file without its compression."""
    opener = gzip if path.open("rb").read(2) == b"\x1f\x8b" else lzma
    with opener.open(path) as source, (target / FILES / "uncompressed").open("wb") as file:
        shutil.copyfileobj(source, file)


def tar(path, target):
    tool("tar", "--extract", "--file", path, "--directory", target / FILES, "--xattrs", "--xattrs-include=*",
         "--same-permissions", "--numeric-owner")
    with tarfile.open(path) as archive:
        members = [f"{member.name} {member.type} {member.linkname}" for member in archive]
    (target / "members").write_text("\n".join(members))
    if (target / FILES / "oci-layout").exists():
        container(target / FILES)


def container(directory):
    """Names the blobs of an OCI image by what they are, instead of by digests that any difference in them changes."""
    names = {}

    def blob(descriptor, name):
        digest = descriptor["digest"]
        names[digest] = name
        return directory / "blobs" / digest.replace(":", "/")

    for number, entry in enumerate(json.loads((directory / "index.json").read_text())["manifests"]):
        manifest = json.loads(blob(entry, f"manifest-{number}").read_text())
        config = json.loads(blob(manifest["config"], f"config-{number}").read_text())
        for layer, descriptor in enumerate(manifest["layers"]):
            blob(descriptor, f"layer-{number}-{layer}")
            names.setdefault(config["rootfs"]["diff_ids"][layer], f"content-{number}-{layer}")
    for digest, name in names.items():
        place = directory / "blobs" / digest.replace(":", "/")
        if place.exists():
            place.rename(directory / "blobs" / name)
    for text in directory.rglob("*"):
        if text.is_file() and text.name.startswith(("index.json", "manifest-", "config-")):
            content = text.read_text()
            text.write_text(re.sub(r"sha256:[0-9a-f]{64}", lambda match: names.get(match[0], match[0]), content))


def cpio(path, target):
    with path.open("rb") as archive:
        subprocess.run(["cpio", "--extract", "--make-directories", "--preserve-modification-time", "--quiet",
                        "--no-absolute-filenames", "--unconditional"], stdin=archive, cwd=target / FILES, check=True)
    (target / "members").write_text(tool("cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet", "--file", path))


def zip_archive(path, target):
    tool("unzip", "-q", "-X", "-K", path, "-d", target / FILES)
    with zipfile.ZipFile(path) as archive:
        members = [f"{one.filename} {one.date_time} {one.external_attr:o} {one.compress_type} {one.comment}"
                   for one in archive.infolist()]
    (target / "members").write_text("\n".join(members))


def qemu(path, target):
    described = json.loads(tool("qemu-img", "info", "--output=json", path))
    for key in ("filename", "actual-size", "children"):
        described.pop(key, None)
    for extent in described.get("format-specific", {}).get("data", {}).get("extents", []):
        extent["filename"] = os.path.basename(extent["filename"])
    (target / "described").write_text(json.dumps(described, indent=1))
    tool("qemu-img", "convert", "-O", "raw", path, target / FILES / "disk.raw")


def mount(path, target, filesystem, *options):
    tool("mount", "-t", filesystem, "-o", ",".join(("ro", "loop", *options)), path, target / FILES)


def ext4(path, target):
    (target / "superblock").write_text(tool("dumpe2fs", "-h", path))
    mount(path, target, "ext4", "noload")


def xfs(path, target):
    (target / "superblock").write_text(tool("xfs_db", "-r", "-c", "sb 0", "-c", "print", path))
    mount(path, target, "xfs", "norecovery", "nouuid")


def erofs(path, target):
    (target / "superblock").write_text(tool("dump.erofs", "-s", path))
    mount(path, target, "erofs")


def iso9660(path, target):
    said = tool("xorriso", "-abort_on", "NEVER", "-indev", path.name, "-pvd_info", "-report_el_torito", "plain",
                cwd=path.parent)
    (target / "volume").write_text(said)
    tool("xorriso", "-osirrox", "on:auto_chmod_off", "-indev", path.name, "-extract", "/", target / FILES, cwd=path.parent)


def fat(path, target):
    (target / "listing").write_text(tool("mdir", "-a", "-/", "-i", path, "::"))
    tool("mcopy", "-s", "-p", "-m", "-n", "-i", path, "::", target / FILES)


def luks(path, target):
    """The header in words, and the payload; keys cannot be compared."""
    (target / "header").write_text(tool("cryptsetup", "luksDump", path.name, cwd=path.parent))
    described = json.loads(tool("cryptsetup", "luksDump", "--dump-json-metadata", path))
    copy_part(path, target / FILES / "payload", int(described["segments"]["0"]["offset"]), None)


def verity(path, target):
    """The header in words, and whether the tree of hashes is that of a file beside it with the root hash beside it."""
    (target / "header").write_text(tool("veritysetup", "dump", path.name, cwd=path.parent))
    beside = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path]
    roots = [other for other in beside if re.fullmatch(rb"[0-9a-f]{64}\s*", other.read_bytes()[:70])]
    held = []
    for data in beside:
        for root in roots:
            with contextlib.suppress(subprocess.CalledProcessError):
                tool("veritysetup", "verify", data, path, root.read_text().strip())
                held.append(f"{data.name} is what {root.name} says")
    (target / "verified").write_text("\n".join(held))


def database(path, target):
    """The content in SQL, with what waits in the log beside it; of rpm's database what rpm says is in it."""
    for suffix in ("", "-wal", "-shm"):
        if path.with_name(path.name + suffix).exists():
            shutil.copy(path.with_name(path.name + suffix), target / (path.name + suffix))
    copy = target / path.name
    if path.name == "rpmdb.sqlite":
        said = tool("rpm", "--dbpath", target, "--query", "--all", "--queryformat", "[%{*:xml}]\n")
        (target / FILES / "packages").write_text(said)
    else:
        connection = sqlite3.connect(copy)
        (target / FILES / "dump").write_text("\n".join(connection.iterdump()))
        connection.close()
    for suffix in ("", "-wal", "-shm"):
        target.joinpath(path.name + suffix).unlink(missing_ok=True)


def disk(path, target):
    """A partition table and what each partition holds."""
    table = json.loads(tool("sfdisk", "--json", path))["partitiontable"]
    table.pop("device")
    for number, partition in enumerate(table.get("partitions", [])):
        partition.pop("node")
        size = table.get("sectorsize", 512)
        copy_part(path, target / FILES / f"partition-{number}", partition["start"] * size, partition["size"] * size)
    (target / "table").write_text(json.dumps(table, indent=1))
    # What lies before the first partition but the table itself: boot code, and what boot loaders embed.
    first = min((one["start"] for one in table.get("partitions", [])), default=0)
    copy_part(path, target / FILES / "boot-code", 0, 440)
    after = 34 if table["label"] == "gpt" else 1
    if first > after:
        copy_part(path, target / FILES / "embedded", after * 512, (first - after) * 512)


def copy_part(path, target, offset, size):
    with path.open("rb") as source, target.open("wb") as file:
        source.seek(offset)
        left = size if size is not None else path.stat().st_size - offset
        while left > 0 and (chunk := source.read(min(left, 1 << 20))):
            if chunk.strip(b"\0"):
                file.write(chunk)
            else:
                file.seek(len(chunk), os.SEEK_CUR)
            left -= len(chunk)
        file.truncate(file.tell())
