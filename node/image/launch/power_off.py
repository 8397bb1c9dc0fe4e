"""Presses a machine's power button, so that its node finishes its jobs and ends.

    power_off.py CONTROL-SOCKET      QEMU's, made by `-qmp unix:CONTROL-SOCKET,server,nowait`
"""

import json
import socket
import sys


def press(path):
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(path)
        answers = control.makefile("r")
        answers.readline()
        for command in ("qmp_capabilities", "system_powerdown"):
            control.sendall(json.dumps({"execute": command}).encode() + b"\n")
            while "return" not in json.loads(answers.readline()):
                pass


if __name__ == "__main__":
    press(sys.argv[1])
