"""Boots an image in QEMU without a TEE, buys an answer of its node from outside, and turns it off by its power button.

    boot.py NODE IMAGE MODEL OPERATOR-DISK WALLET      the wallet's address must come out of the disk's words

COCOON_SMOKE_SECONDS is how long all of it may take (600), COCOON_SMOKE_CONSOLE=1 prints what the machine said.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent / "launch"))
import power_off

# As few tokens as can be, each of which takes an emulated processor seconds. Without a system message the model's
# template would put one of 20 tokens there.
MESSAGES = [{"role": "system", "content": "."}, {"role": "user", "content": "Hi"}]
QUESTION = {"model": "smollm2-135m", "temperature": 0, "max_tokens": 2, "messages": MESSAGES}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    def __init__(self, image, disks, folder, deadline):
        self.console, self.deadline = folder / "console", deadline
        # Of the node, and of the devnet's ledger in it.
        self.port, self.ledger = free_port(), free_port()
        forwards = f"hostfwd=tcp:127.0.0.1:{self.port}-:4001,hostfwd=tcp:127.0.0.1:{self.ledger}-:8081"
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
                *drives, "-nic", f"user,model=virtio-net-pci,{forwards}",
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


class Consumer:
    """A node outside, which knows nothing of the machine but its port."""

    def __init__(self, node, machine, model, folder):
        self.command = [node, "--data-dir", folder / "consumer", "--key-file", folder / "consumer.key"]
        self.log = open(folder / "consumer.log", "w")
        self.gateway = free_port()
        self.run("models", "add", model, "--name", QUESTION["model"])
        peer = re.search(r"local_peer_id=(\w+)", machine.said()).group(1)
        self.process = subprocess.Popen(
            [
                *self.command, "--consume", "--minimum-tier", "open", "--ledger", f"http://127.0.0.1:{machine.ledger}",
                "--listen", "/ip4/127.0.0.1/tcp/0", "--gateway-listen", f"127.0.0.1:{self.gateway}",
                "--entry-points", f"/ip4/127.0.0.1/tcp/{machine.port}/p2p/{peer}",
            ],
            stdin=subprocess.DEVNULL, stderr=self.log,
        )

    def run(self, *arguments):
        run = subprocess.run([*self.command, *arguments], capture_output=True, text=True)
        return run.stdout if run.returncode == 0 else None

    def ask(self):
        """A paid answer, or nothing yet: the machine is slow, and its offer has to come first."""
        body = json.dumps(QUESTION).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.gateway}/v1/chat/completions", body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)
        except OSError as error:
            self.refusal = error.read().decode() if hasattr(error, "read") else str(error)
            time.sleep(1)
            return None


def main():
    node, image, model, operator, wallet = sys.argv[1:]
    disks = {"cocoon-model": os.path.realpath(model), "cocoon-operator": operator}
    start = time.monotonic()
    deadline = start + float(os.environ.get("COCOON_SMOKE_SECONDS", "600"))
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(pathlib.Path(image), disks, pathlib.Path(folder), deadline)
        machine.wait("the node runs", lambda: "the node runs" in machine.said())
        print(f"the node runs after {time.monotonic() - start:.0f} s")
        if wallet not in machine.said():
            machine.fail(f"its wallet is not {wallet}")
        consumer = Consumer(node, machine, model, pathlib.Path(folder))
        try:
            machine.wait("the consumer has coins", lambda: consumer.run("wallet", "fund", "5 TON"))
            answer = machine.wait("the node answers", consumer.ask)
        finally:
            consumer.process.terminate()
            consumer.process.wait()
        said, receipt = answer["choices"][0]["message"]["content"], answer["cocoon"]
        if receipt["tier"] != "open" or not int(receipt["price_nanoton"]) > 0:
            machine.fail(f"a machine without a TEE sold {receipt}")
        print(f"it sold an answer after {time.monotonic() - start:.0f} s: {said!r}, {receipt['price_nanoton']} nanoTON, tier {receipt['tier']}")
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
