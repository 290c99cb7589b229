"""Memory of a sandbox: PSS of its processes, and what its cgroup is charged, with the kernel's share."""

import glob
import os
import select
import time

from runtimes import MEMORY_CGROUP

# Until the start's temporary memory is given back and background threads have come to rest.
SETTLE_SECONDS = 1.5
READY_SECONDS = 30


def hierarchy():
    """(root, is_v2) of the cgroup hierarchy that has the memory controller, or (None, False)."""
    if os.path.isdir("/sys/fs/cgroup/memory"):
        return "/sys/fs/cgroup/memory", False
    try:
        with open("/sys/fs/cgroup/cgroup.controllers") as f:
            if "memory" in f.read().split():
                return "/sys/fs/cgroup", True
    except OSError:
        pass
    return None, False


def make_cgroup(name):
    """Makes the cgroup MEMORY_CGROUP/name; returns its name relative to the hierarchy, or None without a controller."""
    root, v2 = hierarchy()
    if root is None:
        return None
    parent = os.path.join(root, MEMORY_CGROUP)
    os.makedirs(parent, exist_ok=True)
    if v2:
        for folder in (root, parent):
            with open(os.path.join(folder, "cgroup.subtree_control"), "w") as f:
                f.write("+memory")
    os.makedirs(os.path.join(parent, name), exist_ok=True)
    return f"{MEMORY_CGROUP}/{name}"


def enter_cgroup(name):
    """Moves the calling process into a cgroup made by make_cgroup."""
    root, _ = hierarchy()
    with open(os.path.join(root, name, "cgroup.procs"), "w") as f:
        f.write(str(os.getpid()))


def remove_cgroups():
    """Removes what make_cgroup made, deepest first. A runtime may have removed its own already."""
    root, _ = hierarchy()
    if root is None:
        return
    for folder, _, _ in os.walk(os.path.join(root, MEMORY_CGROUP), topdown=False):
        for _ in range(50):
            try:
                os.rmdir(folder)
                break
            except FileNotFoundError:
                break
            except OSError:
                # The last processes are still leaving.
                time.sleep(0.02)


def read_number(path):
    try:
        with open(path) as f:
            return int(f.read())
    except (OSError, ValueError):
        return None


def charge(name):
    """(all, kernel's share) in bytes that the cgroup is charged; None where the host does not say."""
    root, v2 = hierarchy()
    if root is None:
        return None, None
    folder = os.path.join(root, name)
    if not v2:
        return (read_number(os.path.join(folder, "memory.usage_in_bytes")),
                read_number(os.path.join(folder, "memory.kmem.usage_in_bytes")))
    kernel = None
    try:
        with open(os.path.join(folder, "memory.stat")) as f:
            kernel = next((int(l.split()[1]) for l in f if l.startswith("kernel ")), None)
    except OSError:
        pass
    return read_number(os.path.join(folder, "memory.current")), kernel


def charge_of_all(name, pids):
    """The charge of the sandbox's cgroup, and of those outside it that its processes are in: a runtime may make its own
    for the guest."""
    names = {name}
    for pid in pids:
        other = cgroup_of(pid)
        if other and not any(other == n or other.startswith(n + "/") for n in names):
            names.add(other)
    charges = [charge(n) for n in names]
    return tuple(sum(values) if all(v is not None for v in values) else None for values in zip(*charges))


def cgroup_of(pid):
    """Path of a process's memory cgroup below the hierarchy's root; None for the root and for a process that is gone."""
    try:
        with open(f"/proc/{pid}/cgroup") as f:
            for line in f:
                _, controllers, path = line.strip().split(":", 2)
                if "memory" in controllers.split(",") or (hierarchy()[1] and controllers == ""):
                    return path.strip("/") or None
    except OSError:
        pass
    return None


def processes(name, top):
    """The sandbox's processes: all in its cgroup and below, and `top` with its descendants."""
    found = set()
    root, _ = hierarchy()
    if root is not None:
        for path in glob.glob(os.path.join(root, name, "**", "cgroup.procs"), recursive=True):
            with open(path) as f:
                found.update(int(line) for line in f)
    parents = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as f:
                # The command may hold spaces and parentheses: fields count from the last one.
                parents[int(entry)] = int(f.read().rpartition(")")[2].split()[1])
        except OSError:
            pass
    if top in parents:
        found.add(top)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def pss(pids):
    """Sum of the processes' proportional set sizes in bytes."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += next((int(l.split()[1]) * 1024 for l in f if l.startswith("Pss:")), 0)
        except (OSError, ProcessLookupError):
            pass
    return total


def wait_ready(process):
    """Waits for the line that the idle program prints; raises TimeoutError or RuntimeError."""
    ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
    if not ready:
        raise TimeoutError(f"not ready after {READY_SECONDS} s")
    if b"ready" not in os.read(process.stdout.fileno(), 100):
        raise RuntimeError("ended before it was ready")


def measure(runtime, count=10):
    """Starts `count` idle sandboxes; returns a dict of byte counts for the first alone and the last beside the rest."""
    argv = ["/bin/sh", "-c", "echo ready; exec sleep 1000"]
    running = []
    result = {}
    try:
        for index in range(count):
            name = make_cgroup(f"{runtime.name.replace(' ', '-')}-{index}")
            if name is None:
                raise RuntimeError("no memory cgroup controller on this host")
            process, stop = runtime.start_idle(argv, name)
            running.append(stop)
            wait_ready(process)
            if index in (0, count - 1):
                time.sleep(SETTLE_SECONDS)
                which = "first" if index == 0 else "tenth"
                pids = processes(name, process.pid)
                used, kernel = charge_of_all(name, pids)
                result[which] = {"pss": pss(pids), "charge": used, "kernel": kernel, "processes": len(pids)}
    finally:
        for stop in running:
            stop()
        remove_cgroups()
    return result
