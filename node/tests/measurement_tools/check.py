"""Holds `cocoon-node tee measure` to what others compute.

SEV-SNP: PyPI's sev-snp-measure. TDX: PyPI's lief for the kernel's Authenticode digest, and for the rest a second
implementation in this file, written from Intel's documents; given Ubuntu's ovmf 2025.02-3ubuntu2 (OVMF.fd, SHA-256 9e807cb2…)
it prints the MRTD 7357a10d…1114 that live guests with this firmware report in their quotes, and in the other order 7ce4cec5…14eb,
which is published for older hosts.

    check.py compare COCOON_NODE FOLDER [FIRMWARE…]     FOLDER has the two ends of OVMF; prints a line for each configuration
    check.py mrtd FIRMWARE                              page order, then section order
    check.py rtmr KERNEL INITRD COMMAND_LINE            RTMR1, then RTMR2 with the option in front, then behind
"""

import hashlib
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import uuid

import lief
from sevsnpmeasure import guest, vcpu_types, vmm_types
from sevsnpmeasure.sev_mode import SevMode


def sha384(data):
    return hashlib.sha384(data).digest()


def blocks(firmware):
    """OVMF's table of named blocks."""
    end = len(firmware) - 32
    start = end - 18
    assert firmware[start + 2 : end] == uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    table = firmware[start - (struct.unpack_from("<H", firmware, start)[0] - 18) : start]
    found = {}
    while table:
        (length,) = struct.unpack_from("<H", table, len(table) - 18)
        found[uuid.UUID(bytes_le=table[-16:])] = table[len(table) - length : -18]
        table = table[: len(table) - length]
    return found


def mrtd(firmware, by_page):
    offset = blocks(firmware)[uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2")]
    start = len(firmware) - struct.unpack("<I", offset)[0]
    signature, _, version, count = struct.unpack_from("<4sIII", firmware, start)
    assert (signature, version) == (b"TDVF", 1)
    digest = hashlib.sha384()

    def call(name, address):
        digest.update(name.ljust(16, b"\0") + struct.pack("<Q", address) + bytes(104))

    for index in range(count):
        data, _, address, size, _, attributes = struct.unpack_from("<IIQQII", firmware, start + 16 + 32 * index)
        pages = [address + page for page in range(0, size, 4096)]

        def add(page):
            if not attributes & 2:
                call(b"MEM.PAGE.ADD", page)

        def extend(page):
            for chunk in range(page, page + 4096, 256) if attributes & 1 else ():
                call(b"MR.EXTEND", chunk)
                digest.update(firmware[data + chunk - address :][:256])

        if by_page:
            for page in pages:
                add(page)
                extend(page)
        else:
            for page in pages:
                add(page)
            for page in pages:
                extend(page)
    return digest.hexdigest()


def register(*events):
    value = bytes(48)
    for event in events:
        value = sha384(value + event)
    return value.hex()


def rtmr1(kernel):
    image = lief.PE.parse(list(kernel))
    return register(
        bytes(image.authentihash(lief.PE.ALGORITHMS.SHA_384)),
        sha384(b"Calling EFI Application from Boot Option"),
        sha384(bytes(4)),
        sha384(b"Exit Boot Services Invocation"),
        sha384(b"Exit Boot Services Returned with Success"),
    )


def rtmr2(initrd, command_line, before):
    text = f"initrd=initrd {command_line}" if before else f"{command_line} initrd=initrd"
    return register(sha384((text + "\0").encode("utf-16-le")), sha384(initrd))


def kernel():
    """A small EFI image with two sections in the wrong order, something behind them, and certificates."""
    image = bytearray(0x400)
    image[0:2] = b"MZ"
    struct.pack_into("<I", image, 0x3C, 0x40)
    image[0x40:0x44] = b"PE\0\0"
    struct.pack_into("<HH", image, 0x44, 0x8664, 2)
    struct.pack_into("<HH", image, 0x54, 240, 0x22)
    struct.pack_into("<H", image, 0x58, 0x20B)
    struct.pack_into("<III", image, 0x58 + 56, 0x3000, 0x200, 0xDEADBEEF)
    struct.pack_into("<I", image, 0x58 + 108, 16)
    struct.pack_into("<II", image, 0x58 + 112 + 32, 0x420, 8)
    for index, place in enumerate((0x300, 0x200)):
        struct.pack_into("<8sIIII", image, 0x58 + 240 + 40 * index, b".s%d" % index, 0x100, 0x1000 * (2 - index), 0x100, place)
    image[0x200:] = bytes(index % 251 for index in range(0x200))
    return bytes(image) + bytes([7] * 0x20) + bytes([9] * 8)


def tdvf():
    """A small TDVF: measured code, variables, a stack, memory that is accepted later."""
    sections = [
        (0x1000, 0x2000, 0xFFFFC000, 0x2000, 0, 1),
        (0, 0x1000, 0xFFFFB000, 0x1000, 1, 0),
        (0, 0, 0x810000, 0x3000, 3, 0),
        (0, 0, 0x820000, 0x1000, 4, 2),
    ]
    table = b""
    for name, data in (
        (bytes([1] * 16), b"else"),
        (uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le, struct.pack("<I", 0x1000)),
    ):
        table += data + struct.pack("<H", len(data) + 18) + name
    table += struct.pack("<H", len(table) + 18) + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    image = bytearray(0x5000 - len(table) - 32) + table + bytes([0x90] * 32)
    image[:0x3000] = bytes(index % 253 for index in range(0x3000))
    metadata = struct.pack("<4sIII", b"TDVF", 16 + 32 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<IIQQII", *section) for section in sections)
    image[0x4000 : 0x4000 + len(metadata)] = metadata
    return bytes(image)


def measured(node, *arguments):
    run = subprocess.run([node, "tee", "measure", *arguments, "--json"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def compare_snp(node, folder, work, firmwares):
    (work / "kernel").write_bytes(b"a kernel")
    (work / "initrd").write_bytes(b"an initrd")
    boot = (str(work / "kernel"), str(work / "initrd"), "console=ttyS0 quiet -- --provide")
    none = (None, None, None)
    amdsev, generic = str(folder / "ovmf_AmdSev_suffix.bin"), str(folder / "ovmf_OvmfX64_suffix.bin")
    cases = [
        (amdsev, 1, "EPYC-v4", 1, boot),
        (amdsev, 16, "EPYC-Milan", 1, boot),
        (amdsev, 64, "EPYC-Genoa", 0x21, boot),
        (amdsev, 3, "EPYC-Rome", 1, none),
        (generic, 8, "EPYC-Milan-v2", 1, none),
    ] + [(str(firmware), 4, "EPYC-v4", 1, none) for firmware in firmwares]
    for firmware, vcpus, model, features, (kernel, initrd, append) in cases:
        theirs = guest.calc_launch_digest(
            SevMode.SEV_SNP, vcpus, vcpu_types.CPU_SIGS[model], firmware, kernel, initrd, append, features,
            vmm_type=vmm_types.VMMType.QEMU,
        ).hex()
        arguments = ["snp", "--firmware", firmware, "--vcpus", str(vcpus), "--vcpu-type", model, "--guest-features", hex(features)]
        if kernel:
            arguments += ["--kernel", kernel, "--initrd", initrd, "--command-line", append]
        ours = measured(node, *arguments)["digests"][0]["measurement"]
        assert ours == theirs, (firmware, vcpus, model, ours, theirs)
        print(f"snp {model} x{vcpus} features {features:#x} {'kernel' if kernel else 'firmware'}: {ours[:16]} equal")


def compare_tdx(node, work):
    firmware, image, initrd, line = tdvf(), kernel(), b"an initrd", "quiet -- --provide"
    for name, content in (("tdvf", firmware), ("bzimage", image), ("initrd", initrd)):
        (work / name).write_bytes(content)
    files = ["--kernel", str(work / "bzimage"), "--initrd", str(work / "initrd"), "--command-line", line]
    for by_page in (True, False):
        for before in (True, False):
            options = ["--page-order", "page" if by_page else "section", "--initrd-option", "before" if before else "after"]
            ours = measured(node, "tdx", "--firmware", str(work / "tdvf"), *files, *options)
            theirs = (mrtd(firmware, by_page), rtmr1(image), rtmr2(initrd, line, before))
            assert (ours["mrtd"], ours["rtmr1"], ours["rtmr2"]) == theirs, (ours, theirs)
            print(f"tdx {' '.join(options)}: {ours['mrtd'][:16]} {ours['rtmr1'][:16]} {ours['rtmr2'][:16]} equal")


def main():
    command, *arguments = sys.argv[1:]
    if command == "compare":
        node, folder, *firmwares = arguments
        with tempfile.TemporaryDirectory() as work:
            compare_snp(node, pathlib.Path(folder), pathlib.Path(work), firmwares)
            compare_tdx(node, pathlib.Path(work))
    elif command == "mrtd":
        firmware = pathlib.Path(arguments[0]).read_bytes()
        print(mrtd(firmware, True), mrtd(firmware, False), sep="\n")
    elif command == "rtmr":
        image, initrd = (pathlib.Path(name).read_bytes() for name in arguments[:2])
        print(rtmr1(image), rtmr2(initrd, arguments[2], True), rtmr2(initrd, arguments[2], False), sep="\n")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
