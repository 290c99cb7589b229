#!/usr/bin/env python3
"""Cold starts of an initialised Node and CPython: from the command's exec to the first byte of the handler's answer.

    benches/coldstart.py [--runs N] [--program node|python]... [--runtimes WORD]... [--json FILE] [--svg FILE]

The handler is loaded and warmed (1,000 calls), then saved; each way to get an instance of it is timed, one run of each in
turn, so that other load meets all alike. Per instance it also prints PSS and private memory of the sandbox's own
processes after the first answer. Needs root."""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(HERE)

# After `ready` the handler answers once a millisecond, so that the same program serves whoever saves it from outside.
NODE = """
for (const m of ['fs','path','http','https','crypto','util','stream','zlib','url','events']) require(m);
const routes = {'/sum': q => ({sum: q.a + q.b})};
const handle = text => { const r = JSON.parse(text); return JSON.stringify(routes[r.path](r.query)); };
for (let i = 0; i < 1000; i++) handle(JSON.stringify({path: '/sum', query: {a: i, b: 1}}));
console.log('ready');
setInterval(() => console.log(handle('{"path":"/sum","query":{"a":40,"b":2}}')), 1);
"""
PYTHON = """
import asyncio, collections, decimal, email, hashlib, http.client, json, logging, re, time, urllib.parse
routes = {'/sum': lambda q: {'sum': q['a'] + q['b']}}
def handle(text):
    r = json.loads(text)
    return json.dumps(routes[r['path']](r['query']))
for i in range(1000):
    handle(json.dumps({'path': '/sum', 'query': {'a': i, 'b': 1}}))
print('ready', flush=True)
while True:
    time.sleep(0.001)
    print(handle('{"path":"/sum","query":{"a":40,"b":2}}'), flush=True)
"""
PROGRAMS = {"node": ["/usr/bin/node", "-e", NODE], "python": ["/usr/bin/python3", "-c", PYTHON]}
TIMEOUT = 30


def answer(argv):
    """Runs `argv` until the first byte of an answer; returns (milliseconds, process). A `ready` is no answer."""
    read, write = os.pipe()
    begun = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    text = b""
    while b"{" not in text:
        piece = os.read(read, 4096)
        if not piece:
            raise RuntimeError(f"{argv}: no answer: {process.stderr.read().decode()}")
        text += piece
    return (time.monotonic() - begun) * 1000, process, read


def memory_of(pid):
    """PSS and private KiB of `pid` and its descendants."""
    pss = private = 0
    pids = [pid]
    while pids:
        one = pids.pop()
        try:
            with open(f"/proc/{one}/task/{one}/children") as f:
                pids += [int(p) for p in f.read().split()]
            with open(f"/proc/{one}/smaps_rollup") as f:
                rollup = dict(re.findall(r"(\w+):\s+(\d+) kB", f.read()))
        except OSError:
            continue
        pss += int(rollup["Pss"])
        private += int(rollup["Private_Clean"]) + int(rollup["Private_Dirty"])
    return pss, private


class Way:
    """One row: how to get an instance."""

    def __init__(self, name, work, base, bundle):
        self.name, self.work, self.base, self.bundle = name, work, base, bundle
        self.times, self.pss, self.private, self.inside = [], [], [], []
        self.count = 0

    def quiet(self, *args):
        subprocess.run([*self.base, *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=TIMEOUT, check=False)

    def make(self, name):
        """The command that makes the instance `name`."""
        raise NotImplementedError

    def once(self):
        self.count += 1
        name = f"cold-{os.getpid()}-{id(self) % 100000}-{self.count}"
        try:
            took, process, read = answer(self.make(name))
            state = subprocess.run([*self.base, "state", name], capture_output=True, text=True, check=False)
            if state.returncode == 0:
                pss, private = memory_of(json.loads(state.stdout)["pid"])
                self.pss.append(pss)
                self.private.append(private)
            self.times.append(took)
        finally:
            self.quiet("delete", "--force", name)
        os.close(read)
        process.wait(timeout=TIMEOUT)
        process.stderr.close()


class Run(Way):
    """Nothing is saved: the program starts."""

    def make(self, name):
        return [*self.base, "run", "--bundle", self.bundle, name]


class Restore(Way):
    def __init__(self, *args, flags=()):
        super().__init__(*args)
        self.image = os.path.join(self.work, f"snapshot-{id(self)}")
        self.flags = flags
        name = f"cold-{os.getpid()}-original"
        argv = [*self.base, "run", "--bundle", self.bundle, name]
        _, process, read = answer(argv)
        try:
            self.save(name)
        finally:
            self.quiet("delete", "--force", name)
        os.close(read)
        process.wait(timeout=TIMEOUT)

    def save(self, name):
        os.makedirs(self.image, exist_ok=True)
        subprocess.run([*self.base, "checkpoint", f"--image-path={self.image}", *self.flags, name],
                       check=True, timeout=TIMEOUT, stdout=subprocess.DEVNULL)

    def make(self, name):
        return [*self.base, "restore", f"--image-path={self.image}", "--bundle", self.bundle, name]


class Fork(Restore):
    def __init__(self, *args, flags=()):
        self.template = f"cold-{os.getpid()}"
        super().__init__(*args, flags=flags)

    def save(self, name):
        subprocess.run([*self.base, "template", "create", "--from", name, self.template], check=True, timeout=TIMEOUT)

    def make(self, name):
        return [*self.base, "fork", "--template", self.template, "--detach", *self.flags, name]

    def close(self):
        self.quiet("template", "delete", self.template)


class Pooled(Fork):
    def __init__(self, *args, platform):
        super().__init__(*args)
        self.log = os.path.join(self.work, f"pool-{platform}.log")
        self.pool = subprocess.Popen([*self.base, "--log", self.log, "--debug", "pool", "serve", "--blanks", "4",
                                      "--platform", platform], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.settle()

    def settle(self):
        for _ in range(1000):
            stats = subprocess.run([*self.base, "pool", "stats"], capture_output=True, text=True, check=False)
            if stats.returncode == 0 and json.loads(stats.stdout)["ready"] == 4:
                return
            time.sleep(0.01)
        raise RuntimeError("the pool does not come up")

    def once(self):
        self.settle()
        super().once()

    def close(self):
        self.pool.terminate()
        self.pool.wait(timeout=TIMEOUT)
        with open(self.log) as f:
            self.inside = [int(us) / 1000 for us in re.findall(r"restored in (\d+) us", f.read())]
        super().close()


def bundle(work, name, binary, program, root, annotations):
    folder = os.path.join(work, f"bundle-{name}")
    os.makedirs(folder)
    subprocess.run([binary, "spec"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        spec = json.load(f)
    spec["process"].update(terminal=False, args=PROGRAMS[program], cwd="/")
    spec["root"] = {"path": root, "readonly": False}
    spec["annotations"] = annotations
    # A group's own view of its cgroup is not saved.
    spec["mounts"] = [m for m in spec["mounts"] if m["type"] != "cgroup"]
    with open(path, "w") as f:
        json.dump(spec, f)
    return folder


def ways(work, program, image, root, binary, cache, wanted):
    """All rows, those that cannot be had here left out with a line that says why."""
    found = []

    def add(name, make):
        if wanted and not any(word in name for word in wanted):
            return
        try:
            found.append(make())
        except (RuntimeError, OSError, subprocess.SubprocessError) as e:
            print(f"# {name}: left out: {e}", file=sys.stderr)

    for platform in ["ptrace", "kvm"]:
        if platform == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            continue
        ours = bundle(work, f"{platform}", binary, program, image, {"dev.nanovisor.platform": platform})
        for name, make in [
            ("restore", lambda base, n, b=ours: Restore(n, work, base, b)),
            ("fork", lambda base, n, b=ours: Fork(n, work, base, b, flags=["--no-pool"])),
            ("fork, pool", lambda base, n, b=ours, p=platform: Pooled(n, work, base, b, platform=p)),
            ("run", lambda base, n, b=ours: Run(n, work, base, b)),
        ]:
            full = f"nanovisor {platform} {name}"
            base = [binary, "--root", os.path.join(work, full.replace(" ", "-"))]
            add(full, lambda make=make, base=base, full=full: make(base, full))
    runsc = os.path.join(cache, "bin", "runsc")
    if os.access(runsc, os.X_OK):
        theirs = bundle(work, "runsc", runsc, program, root, {})
        for platform in ["systrap", "ptrace"]:
            name = f"runsc {platform} restore"
            base = [runsc, "--root", os.path.join(work, name.replace(" ", "-")), f"--platform={platform}",
                    "--network=none", "--overlay2=root:memory"]
            add(name, lambda base=base, name=name: Restore(name, work, base, theirs, flags=["--compression=none"]))
    runc = shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin")
    if runc:
        theirs = bundle(work, "runc", runc, program, root, {})
        add("runc run", lambda: Run("runc run", work, [runc, "--root", os.path.join(work, "runc-state")], theirs))
    return found


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def table(program, rows):
    print(f"\n{program}: ms from exec to the first byte of the answer (in-process: without the command), KiB an instance")
    print(f"{'':32}{'p50':>8}{'p99':>8}{'min':>8}{'in p50':>8}{'in p99':>8}{'PSS':>9}{'private':>9}")
    for row in rows:
        inside = (f"{statistics.median(row.inside):8.2f}{percentile(row.inside, 0.99):8.2f}"
                  if row.inside else " " * 16)
        kib = f"{statistics.median(row.pss):9.0f}{statistics.median(row.private):9.0f}" if row.pss else ""
        print(f"{row.name:32}{statistics.median(row.times):8.1f}{percentile(row.times, 0.99):8.1f}"
              f"{min(row.times):8.1f}{inside}{kib}")


def svg(path, results):
    """Cumulative distributions, one line a row, of the first program's times."""
    width, height, left = 900, 480, 60
    rows = [(f"{program} {name}", sorted(figures["ms"])) for program, all in results.items()
            for name, figures in all.items()]
    most = max(times[-1] for _, times in rows)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 340}" height="{height + 60}" '
             'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>']
    for part in range(0, 101, 25):
        y = 20 + height * (1 - part / 100)
        parts.append(f'<text x="10" y="{y:.0f}">{part}%</text>'
                     f'<line x1="{left}" x2="{left + width}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
    for part in range(0, 6):
        x = left + width * part / 5
        parts.append(f'<text x="{x:.0f}" y="{height + 40}">{most * part / 5:.0f} ms</text>')
    for n, (name, times) in enumerate(rows):
        colour = f"hsl({n * 360 // len(rows)},70%,40%)"
        points = " ".join(f"{left + width * t / most:.1f},{20 + height * (1 - (i + 1) / len(times)):.1f}"
                          for i, t in enumerate(times))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'
                     f'<text x="{left + width + 10}" y="{30 + n * 16}" fill="{colour}">{name}</text>')
    with open(path, "w") as f:
        f.write("\n".join(parts) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--program", action="append", choices=sorted(PROGRAMS))
    parser.add_argument("--runtimes", action="append", default=[])
    parser.add_argument("--binary", default=os.path.join(REPO, "target/x86_64-unknown-linux-gnu/release/nanovisor"))
    parser.add_argument("--json")
    parser.add_argument("--svg")
    args = parser.parse_args()
    script = os.path.join(REPO, "scripts/build-rootfs.sh")
    image, root = (subprocess.run([script, what], check=True, capture_output=True, text=True).stdout.strip()
                   for what in ["image", "dir"])
    cache = os.environ.get("NANOVISOR_CACHE", os.path.expanduser("~/.cache/nanovisor"))
    results = {}
    for program in args.program or sorted(PROGRAMS):
        with tempfile.TemporaryDirectory(prefix="coldstart.") as work:
            rows = ways(work, program, image, root, args.binary, cache, args.runtimes)
            for _ in range(args.runs):
                for row in rows:
                    row.once()
            for row in rows:
                getattr(row, "close", lambda: None)()
            # runsc leaves a mount behind, which would keep the folder.
            for state in os.listdir(work):
                left = os.path.join(work, state, "null-netns")
                if os.path.exists(left):
                    subprocess.run(["umount", left], stderr=subprocess.DEVNULL, check=False)
            table(program, rows)
            results[program] = {row.name: {"ms": row.times, "inside_ms": row.inside, "pss_kib": row.pss,
                                           "private_kib": row.private} for row in rows}
    if args.json:
        with open(args.json, "w") as f:
            json.dump(results, f)
    if args.svg:
        svg(args.svg, results)


if __name__ == "__main__":
    main()
