"""Boots an image in QEMU without a TEE, speaks to its node, and turns it off by its power button.

    boot.py IMAGE MODEL OPERATOR-DISK WALLET      the wallet's address must come out of the disk's words

COCOON_SMOKE_SECONDS is how long all of it may take (300), COCOON_SMOKE_CONSOLE=1 prints what the machine said.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "launch"))
import power_off

# How every libp2p node greets on TCP (multistream-select 1.0).
GREETING = b"\x13/multistream/1.0.0\n"


class Machine:
    def __init__(self, image, disks, folder, deadline):
        self.console, self.deadline = folder / "console", deadline
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.control = folder / "control"
        drives = []
        for serial, path in disks.items():
            drives += ["-drive", f"file={path},if=none,id={serial},format=raw,readonly=on"]
            drives += ["-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
        # TCG everywhere, so that this is the same test on every machine.
        self.process = subprocess.Popen(
            [
                "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536M",
                "-kernel", image / "vmlinuz", "-initrd", image / "initrd", "-append", (image / "cmdline").read_text(),
                *drives, "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{self.port}-:4001",
                "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{self.console}", "-qmp", f"unix:{self.control},server,nowait",
            ],
            stdin=subprocess.DEVNULL,
        )

    def said(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def fail(self, what):
        self.process.kill()
        sys.exit(f"{self.said()}\nerror: {what}")

    def wait(self, what, done):
        while not (result := done()):
            if self.process.poll() is not None:
                self.fail(f"the machine ended before {what}")
            if time.monotonic() > self.deadline:
                self.fail(f"no time is left for {what}")
            time.sleep(0.1)
        return result

    def greet(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=20) as stream:
                stream.sendall(GREETING)
                return stream.makefile("rb").read(len(GREETING)) == GREETING
        except OSError:
            return False


def main():
    image, model, operator, wallet = sys.argv[1:]
    disks = {"cocoon-model": os.path.realpath(model), "cocoon-operator": operator}
    start = time.monotonic()
    deadline = start + float(os.environ.get("COCOON_SMOKE_SECONDS", "300"))
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(pathlib.Path(image), disks, pathlib.Path(folder), deadline)
        machine.wait("the node runs", lambda: "the node runs" in machine.said())
        print(f"the node runs after {time.monotonic() - start:.0f} s")
        machine.wait("the node answers", machine.greet)
        if wallet not in machine.said():
            machine.fail(f"its wallet is not {wallet}")
        print(f"it answers on its port after {time.monotonic() - start:.0f} s")
        power_off.press(str(machine.control))
        while machine.process.poll() is None:
            if time.monotonic() > machine.deadline:
                machine.fail("the machine did not end after its power button was pressed")
            time.sleep(0.1)
        if "the node ended: exit status: 0" not in machine.said():
            machine.fail("the node did not end well")
        print(f"it ended well after {time.monotonic() - start:.0f} s")
        if os.environ.get("COCOON_SMOKE_CONSOLE"):
            print(machine.said())


if __name__ == "__main__":
    main()
