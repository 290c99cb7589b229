"""The runtimes that are compared: how each runs a command in the same Debian root, and why it cannot where it cannot."""

import copy
import itertools
import json
import os
import shutil
import subprocess

MEMORY_CGROUP = "nanovisor-bench"


class Runtime:
    """One column. `command` gives the host's argument vector that runs `argv` inside, in the foreground."""

    name = ""

    def unavailable(self):
        """Why this runtime cannot run here, or None."""
        return None

    def command(self, argv):
        raise NotImplementedError

    def start_idle(self, argv, cgroup):
        """Starts `argv` in the background in its own memory cgroup; returns (process, stop function)."""
        raise NotImplementedError

    def close(self):
        pass


class Native(Runtime):
    """The host's kernel: chroot into the same files."""

    name = "native"

    def __init__(self, root):
        self.root = root

    def command(self, argv):
        return [shutil.which("chroot") or "/usr/sbin/chroot", self.root, *argv]


class Oci(Runtime):
    """runc and runsc: a bundle per command, over the unpacked root, read-only, with a tmpfs on /tmp."""

    ids = itertools.count()

    def __init__(self, name, binary, flags, root, work, missing):
        self.name, self.binary, self.flags = name, binary, flags
        self.root, self.missing = root, missing
        self.work = os.path.join(work, name.replace(" ", "-"))
        self.state = os.path.join(self.work, "state")
        self.bundles = {}
        self.base = None
        os.makedirs(self.state)

    def unavailable(self):
        return None if self.binary else self.missing

    def spec(self):
        if self.base is None:
            folder = os.path.join(self.work, "spec")
            os.makedirs(folder)
            subprocess.run([self.binary, "spec"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            with open(os.path.join(folder, "config.json")) as f:
                self.base = json.load(f)
        return copy.deepcopy(self.base)

    def bundle(self, argv, cgroup=None):
        key = (tuple(argv), cgroup)
        if key not in self.bundles:
            spec = self.spec()
            spec["process"].update(terminal=False, args=list(argv), cwd="/")
            spec["root"] = {"path": self.root, "readonly": True}
            tmp = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]}
            spec["mounts"] = spec.get("mounts", []) + [tmp]
            if cgroup:
                spec.setdefault("linux", {})["cgroupsPath"] = f"/{cgroup}"
            folder = os.path.join(self.work, f"bundle{len(self.bundles)}")
            os.makedirs(folder)
            with open(os.path.join(folder, "config.json"), "w") as f:
                json.dump(spec, f)
            self.bundles[key] = folder
        return self.bundles[key]

    def base_command(self):
        return [self.binary, "--root", self.state, *self.flags]

    def command(self, argv):
        return [*self.base_command(), "run", "--bundle", self.bundle(argv), f"nvbench-{os.getpid()}-{next(self.ids)}"]

    def start_idle(self, argv, cgroup):
        name = f"nvbench-{os.getpid()}-{next(self.ids)}"
        bundle = self.bundle(argv, cgroup)
        process = subprocess.Popen(
            [*self.base_command(), "run", "--detach", "--bundle", bundle, name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

        def stop():
            subprocess.run([*self.base_command(), "kill", name, "KILL"], stderr=subprocess.DEVNULL)
            subprocess.run([*self.base_command(), "delete", "--force", name], stderr=subprocess.DEVNULL)
            process.stdout.close()
            process.wait()

        return process, stop


class Nanovisor(Runtime):
    """Ours, over the image."""

    def __init__(self, platform, binary, image):
        self.name = f"nanovisor {platform}"
        self.platform, self.binary, self.image = platform, binary, image

    def unavailable(self):
        if not os.access(self.binary, os.X_OK):
            return f"no {self.binary}: run 'make build'"
        if self.platform == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "no usable /dev/kvm"
        return None

    def command(self, argv):
        return [self.binary, "do", "--image", self.image, "--platform", self.platform, "--", *argv]

    def start_idle(self, argv, cgroup):
        from memory import enter_cgroup

        # In its cgroup from the first instruction: the supervising process counts as well.
        process = subprocess.Popen(
            self.command(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: enter_cgroup(cgroup))

        def stop():
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()

        return process, stop


def all_runtimes(root, image, binary, cache, work):
    """The columns, in the order they are printed."""
    runc = shutil.which("runc") or shutil.which("runc", path="/usr/sbin:/sbin")
    runsc = os.path.join(cache, "bin", "runsc")
    runsc = runsc if os.access(runsc, os.X_OK) else shutil.which("runsc")
    # The root's writable layer in memory and no network: what is nearest to ours, and the quickest of its settings.
    flags = ["--network=none", "--overlay2=root:memory"]
    no_runsc = "no runsc: 'make setup' and 'make bench' build it from the Go module proxy"
    return [
        Native(root),
        Oci("runc", runc, [], root, work, "no runc: 'make bench' installs it by apt"),
        Oci("runsc systrap", runsc, ["--platform=systrap", *flags], root, work, no_runsc),
        Oci("runsc ptrace", runsc, ["--platform=ptrace", *flags], root, work, no_runsc),
        Nanovisor("kvm", binary, image),
        Nanovisor("ptrace", binary, image),
    ]
