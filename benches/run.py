#!/usr/bin/env python3
"""Compares native, runc, runsc and nanovisor in one run over the same Debian root, and prints one table.

    benches/run.py [--starts N] [--rounds N] [--ms N] [--only PART]... [--runtimes WORD]... [--json FILE]

PART is starts, micro or memory; WORD picks the runtimes whose name holds it ("native" always runs). `make bench` sets
up what is needed first. Needs root. Runs of the runtimes alternate, so that other load meets all alike."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(HERE)
sys.path.insert(0, HERE)

import memory  # noqa: E402
import report  # noqa: E402
import runtimes  # noqa: E402

NVBENCH = "/opt/nanovisor/nvbench"
STARTS = {
    "start true": (["/bin/true"], ""),
    "start node": (["/usr/bin/node", "-e", "console.log(6*7)"], "42"),
    "start python3": (["/usr/bin/python3", "-c", "print(6*7)"], "42"),
}
START_TIMEOUT = 60
MICRO_TIMEOUT = 300
ONE_TIMEOUT = 60


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=20, help="runs of each program (20)")
    parser.add_argument("--rounds", type=int, default=7, help="timed batches of each microbenchmark (7)")
    parser.add_argument("--ms", type=int, default=20, help="length of a batch in ms (20)")
    parser.add_argument("--only", action="append", choices=["starts", "micro", "memory"])
    parser.add_argument("--runtimes", action="append", default=[])
    parser.add_argument("--root", help="an unpacked root to use as it is (with --image; enough for starts and memory)")
    parser.add_argument("--image", help="the image of that root")
    parser.add_argument("--no-goals", action="store_true", help="leave out the table of goals")
    parser.add_argument("--json", help="write the figures here as well")
    return parser.parse_args()


def script_output(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def prepare():
    """Builds nvbench and its file, and lays them over the Debian root; returns (folder, image)."""
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(REPO, "target"))
    extra = os.path.join(target, "bench-root")
    folder = os.path.join(extra, "opt", "nanovisor")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "data"), "wb") as f:
        f.write(b"nanovisor bench\n" * 4096)
    source = os.path.join(HERE, "nvbench.c")
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", os.path.join(folder, "nvbench"), source], check=True)
    build = os.path.join(REPO, "scripts", "build-rootfs.sh")
    return (script_output(build, "dir", "--extra", extra), script_output(build, "image", "--extra", extra))


def mount_native(root, work):
    """A view of the root with /proc, /dev and a tmpfs on /tmp. Lives in our private mount namespace: gone with us."""
    view = os.path.join(work, "native-root")
    os.makedirs(view)
    subprocess.run(["mount", "--bind", root, view], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", f"{view}/proc"], check=True)
    subprocess.run(["mount", "--rbind", "/dev", f"{view}/dev"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{view}/tmp"], check=True)
    return view


def unmount_below(folder):
    """Takes down our own mounts and what a runtime left in its state folder (runsc: a network namespace)."""
    with open("/proc/self/mounts") as f:
        points = [line.split()[1] for line in f]
    for point in reversed([p for p in points if p.startswith(folder + "/")]):
        subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL)


def run(command, timeout):
    """(seconds, output) of one run; raises RuntimeError with the last line of what went wrong."""
    start = time.perf_counter()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no end after {timeout} s") from None
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise RuntimeError(f"status {done.returncode}: {lines[-1][:200]}")
    return seconds, done.stdout.decode(errors="replace")


class Session:
    def __init__(self, args, columns):
        self.args, self.columns = args, columns
        self.times, self.memory = {}, {}
        # (runtime, why) -> what could not be measured for that reason.
        self.failures = {}

    def fail(self, runtime, what, why):
        self.failures.setdefault((runtime.name, str(why)), []).append(what)

    def reasons(self):
        return [f"{name}, {', '.join(what)}: {why}" for (name, why), what in self.failures.items()]

    def starts(self):
        for row, (argv, expected) in STARTS.items():
            samples = {r.name: [] for r in self.columns}
            broken = set()
            # The first round warms caches and is not counted.
            for index in range(self.args.starts + 1):
                for runtime in self.columns:
                    if runtime.name in broken:
                        continue
                    try:
                        seconds, output = run(runtime.command(argv), START_TIMEOUT)
                        if output.strip() != expected:
                            raise RuntimeError(f"printed {output.strip()[:60]!r}, not {expected!r}")
                        if index:
                            samples[runtime.name].append(seconds * 1e9)
                    except RuntimeError as error:
                        broken.add(runtime.name)
                        self.fail(runtime, row, error)
            self.times[row] = {
                name: (min(values), statistics.median(values))
                for name, values in samples.items() if values and name not in broken
            }

    def micro(self):
        names = [line.split()[0] for line in run([self.nvbench_host, "--check"], ONE_TIMEOUT)[1].splitlines()]
        results = {name: {} for name in names}
        flags = ["--rounds", str(self.args.rounds), "--ms", str(self.args.ms)]
        for runtime in self.columns:
            print(f"  {runtime.name}", file=sys.stderr)
            try:
                output = run(runtime.command([NVBENCH, *flags]), MICRO_TIMEOUT)[1]
                self.take(results, runtime, output)
            except RuntimeError:
                # One of them fails or hangs: each on its own, so that the others still count.
                for name in names:
                    try:
                        self.take(results, runtime, run(runtime.command([NVBENCH, *flags, name]), ONE_TIMEOUT)[1])
                    except RuntimeError as error:
                        self.fail(runtime, name, error)
        self.times.update(results)

    def take(self, results, runtime, output):
        for line in output.splitlines():
            name, low, median = line.split()
            results[name][runtime.name] = (float(low), float(median))

    def idle_memory(self):
        for runtime in self.columns:
            if runtime.name == "native":
                continue
            print(f"  {runtime.name}", file=sys.stderr)
            try:
                self.memory[runtime.name] = memory.measure(runtime)
            except (RuntimeError, TimeoutError, OSError, subprocess.SubprocessError) as error:
                self.fail(runtime, "memory", error)


def private_mounts():
    """Goes on in a mount namespace of its own, so that nothing is left mounted however we end."""
    if os.environ.get("NANOVISOR_BENCH_INNER"):
        return
    os.environ["NANOVISOR_BENCH_INNER"] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def main():
    args = arguments()
    if os.geteuid() != 0:
        sys.exit("error: the benchmark starts containers and reads cgroups: run it as root")
    private_mounts()
    root, image = (args.root, args.image) if args.root and args.image else prepare()
    parts = args.only or ["starts", "micro", "memory"]
    cache = script_output("bash", "-c", f". '{REPO}/scripts/lib.sh'; cache_dir")
    binary = script_output("bash", "-c", f". '{REPO}/scripts/lib.sh'; echo \"$NANOVISOR\"")
    work = tempfile.mkdtemp(prefix="nanovisor-bench.")
    try:
        every = runtimes.all_runtimes(root, image, binary, cache, work)
        every[0].root = mount_native(root, work)
        wanted = [r for r in every if not args.runtimes or r.name == "native" or any(w in r.name for w in args.runtimes)]
        session = Session(args, [r for r in wanted if r.unavailable() is None])
        session.nvbench_host = root + NVBENCH
        missing = [f"{r.name}: {r.unavailable()}" for r in wanted if r.unavailable()]
        for part, action in (("starts", session.starts), ("micro", session.micro), ("memory", session.idle_memory)):
            if part in parts:
                print(f"measuring: {part}", file=sys.stderr)
                action()
    finally:
        unmount_below(work)
        shutil.rmtree(work, ignore_errors=True)
    reasons = missing + session.reasons()
    report.print_results([r.name for r in wanted], session.times, session.memory, reasons)
    if not args.no_goals:
        report.print_goals(session.times, session.memory)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"times_ns": session.times, "memory_bytes": session.memory, "reasons": reasons}, f, indent=1)


if __name__ == "__main__":
    main()
