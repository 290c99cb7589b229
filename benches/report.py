"""The table, and the goals it is held against."""

MIB = 1 << 20
STARTS = ("start true", "start node", "start python3")
# Microbenchmarks whose goal is "other calls".
CALLS = ("stat", "open_close", "pread_4k", "mmap_munmap")
PING_PONGS = ("pipe_pingpong", "futex_threads", "futex_processes")


def format_ns(ns):
    if ns < 1000:
        return f"{ns:.0f} ns"
    if ns < 1e6:
        return f"{ns / 1e3:.3g} us"
    return f"{ns / 1e6:.3g} ms"


def format_ratio(ratio):
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.3g}x"


def time_cell(value, native):
    if value is None:
        return "-"
    low, median = value
    ratio = f" ({format_ratio(low / native[0])})" if native else ""
    return f"{format_ns(low)} / {format_ns(median)}{ratio}"


def memory_cell(value):
    return "-" if value is None else f"{value / MIB:.2f}"


def print_table(header, rows):
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * w for w in widths], *rows]
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")


def print_results(names, times, memory, reasons):
    """`times`: {row: {runtime: (min, median) in ns}}; `memory`: {runtime: result of memory.measure}."""
    if times:
        print_times(names, times)
    if memory:
        print_memory(names, memory)
    if reasons:
        print("\nNot measured:")
        for line in reasons:
            print(f"  {line}")


def print_times(names, times):
    print("\nTimes: min / median (min as a multiple of native)\n")
    rows = []
    for row, cells in times.items():
        native = cells.get("native")
        rows.append([row] + [time_cell(cells.get(n), native if n != "native" else None) for n in names])
    print_table(["", *names], rows)


def print_memory(names, memory):
    print("\nMemory of an idle sandbox, MiB\n")
    boxes = [n for n in names if n != "native"]
    rows = []
    for which in ("first", "tenth"):
        for key, label in (("pss", "PSS"), ("charge", "cgroup charge"), ("kernel", "of it kernel")):
            cells = [memory.get(n, {}).get(which, {}).get(key) for n in boxes]
            rows.append([f"{which}: {label}"] + [memory_cell(c) for c in cells])
    print_table(["", *boxes], rows)


def goals():
    """(row, our platform, most, peers): our figure is at most `most` times the best of the peers."""
    best_runsc = ("runsc systrap", "runsc ptrace")
    for platform in ("kvm", "ptrace"):
        yield "start true", platform, 1.0, ("runc",)
        yield "start true", platform, 0.25, best_runsc
    yield "start node", "kvm", 2.5, best_runsc
    yield "start node", "ptrace", 1.2, best_runsc
    yield "getppid", "ptrace", 0.5, ("runsc ptrace",)
    for row in CALLS:
        yield row, "ptrace", 0.65, ("runsc ptrace",)
    yield "fork_exit", "ptrace", 0.5, ("runsc ptrace",)
    yield "anon_fault", "ptrace", 1.4, ("native",)
    for row in PING_PONGS:
        for platform in ("kvm", "ptrace"):
            yield row, platform, 0.5, ("runsc ptrace",)


def print_goals(times, memory):
    """The goals by medians for starts and minima for the rest: a start's noise is part of it, a call's is not."""
    rows = []
    for row, platform, most, peers in goals():
        cells = times.get(row, {})
        pick = 1 if row in STARTS else 0
        ours = cells.get(f"nanovisor {platform}")
        theirs = [cells[p][pick] for p in peers if cells.get(p)]
        goal = f"at most {most:g}x {'best runsc' if len(peers) > 1 else peers[0]}"
        if not ours or not theirs:
            rows.append([row, platform, goal, "-", "not measured"])
            continue
        ratio = ours[pick] / min(theirs)
        rows.append([row, platform, goal, format_ratio(ratio), "reached" if ratio <= most else "missed"])
    for which, most in (("first", 8), ("tenth", 4)):
        for platform in ("kvm", "ptrace"):
            value = memory.get(f"nanovisor {platform}", {}).get(which, {}).get("pss")
            verdict = "not measured" if value is None else "reached" if value <= most * MIB else "missed"
            rows.append([f"{which} idle sandbox", platform, f"at most {most} MiB PSS", memory_cell(value), verdict])
    print("\nGoals\n")
    print_table(["what", "platform", "goal", "measured", ""], rows)
