"""Runs inside gdb: answers the test's commands, one JSON object a line, over a Unix socket.

The test decides when the process runs and when it stands; here is only what gdb sees of it.
"""

import json
import os
import socket

import gdb

LIMIT = 5000
WORD = (1 << 64) - 1
X86_64 = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base".split()
AARCH64 = [f"x{n}" for n in range(31)] + ["sp", "pc"]


def settings():
    for line in (
        "set pagination off",
        "set confirm off",
        "set print thread-events off",
        "set backtrace past-main on",
        "set backtrace limit unlimited",
        "set width 0",
        "handle all nostop noprint pass",
        "handle SIGSTOP stop print nopass",
        "handle SIGTRAP stop print nopass",
        "handle SIGINT stop print nopass",
    ):
        gdb.execute(line, to_string=True)


def stack():
    """Addresses of all real frames, leaf first, with names; and why there is no more."""
    frames, reason = [], ""
    try:
        frame = gdb.newest_frame()
        while frame is not None and len(frames) < LIMIT:
            # Both share the address of a real one.
            if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
                frames.append([frame.pc() & WORD, frame.name() or "", frame.type() == gdb.SIGTRAMP_FRAME])
            reason = gdb.frame_stop_reason_string(frame.unwind_stop_reason())
            frame = frame.older()
    except gdb.error as error:
        reason = str(error)
    return {"frames": frames, "stopped_by": reason}


def registers():
    frame = gdb.newest_frame()
    names = AARCH64 if "aarch64" in frame.architecture().name() else X86_64
    values = {}
    for name in names:
        values[name] = int(frame.read_register(name)) & WORD
    return values


def threads(command):
    inferior = gdb.selected_inferior()
    found = []
    for thread in sorted(inferior.threads(), key=lambda thread: thread.num)[: command["most"]]:
        try:
            thread.switch()
            found.append({"tid": thread.ptid[1] or thread.ptid[2], "registers": registers(), **stack()})
        except gdb.error as error:
            found.append({"tid": thread.ptid[1], "error": str(error)})
    return {"threads": found}


def current(command):
    thread = gdb.selected_thread()
    return {"threads": [{"tid": thread.ptid[1] or thread.ptid[2], "registers": registers(), **stack()}]}


def run(command):
    """A gdb command that may let the process run; it stands, or is gone, when this answers."""
    text = ""
    try:
        text = gdb.execute(command["text"], to_string=True)
    except gdb.error as error:
        text = f"error: {error}"
    inferior = gdb.selected_inferior()
    return {"alive": bool(inferior.pid) and bool(inferior.threads()), "text": text}


def memory(command):
    """As much as can be read from an address on, at most so many bytes."""
    content, at, end = b"", command["start"], command["start"] + command["bytes"]
    while at < end:
        piece = min(end, (at | 4095) + 1) - at
        try:
            content += gdb.selected_inferior().read_memory(at, piece).tobytes()
        except gdb.error:
            break
        at += piece
    return {"hex": content.hex()}


def main():
    settings()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["EVERFLAME_GDB_SOCKET"])
    stream = connection.makefile("rw")
    for line in stream:
        command = json.loads(line)
        if command["do"] == "quit":
            break
        doers = {"threads": threads, "current": current, "run": run, "memory": memory}
        try:
            answer = doers[command["do"]](command)
        except Exception as error:  # told to the test, which decides
            answer = {"error": f"{type(error).__name__}: {error}"}
        stream.write(json.dumps(answer) + "\n")
        stream.flush()


main()
