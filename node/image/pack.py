"""Packs files into an initrd, the same bytes for the same files: a cpio archive (newc) without times, owners, inodes of this machine.

    pack.py LIST OUTPUT      LIST has a line for each entry, fields apart by tabs:
                             dir PATH MODE | file PATH MODE SOURCE | link PATH TARGET | console PATH
"""

import os
import stat
import sys


def entry(number, path, mode, content=b"", device=(0, 0)):
    name = path.encode() + b"\0"
    fields = [number, mode, 0, 0, 2 if stat.S_ISDIR(mode) else 1, 0, len(content), 0, 0, *device, len(name), 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def read(line):
    kind, path, *rest = line.split("\t")
    if kind == "dir":
        return path, stat.S_IFDIR | int(rest[0], 8), b"", (0, 0)
    if kind == "file":
        with open(rest[1], "rb") as source:
            return path, stat.S_IFREG | int(rest[0], 8), source.read(), (0, 0)
    if kind == "link":
        return path, stat.S_IFLNK | 0o777, rest[0].encode(), (0, 0)
    if kind == "console":
        return path, stat.S_IFCHR | 0o600, b"", (5, 1)
    sys.exit(f"error: no such kind of entry: {line}")


def main():
    listing, output = sys.argv[1:]
    with open(listing, encoding="utf-8") as lines:
        entries = [line.rstrip("\n") for line in lines if line.strip()]
    # A folder sorts before what is in it.
    entries.sort(key=lambda line: line.split("\t")[1])
    paths = [line.split("\t")[1] for line in entries]
    if len(set(paths)) != len(paths):
        sys.exit("error: a path is listed twice")
    with open(output + ".part", "wb") as archive:
        for number, line in enumerate(entries, start=1):
            archive.write(entry(number, *read(line)))
        archive.write(entry(0, "TRAILER!!!", 0))
        archive.write(bytes(-archive.tell() % 512))
    os.rename(output + ".part", output)


if __name__ == "__main__":
    main()
