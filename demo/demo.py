"""Threads, subprocess, sqlite3 and multiprocessing, with the same output on every run."""

import hashlib
import multiprocessing
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time


def threads():
    work, results, lock = queue.Queue(), {}, threading.Lock()
    for n in range(40):
        work.put(n)

    def worker():
        while True:
            try:
                n = work.get_nowait()
            except queue.Empty:
                return
            digest = hashlib.sha256(str(n).encode() * 2000).hexdigest()
            with lock:
                results[n] = digest

    crew = [threading.Thread(target=worker) for _ in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    joined = "".join(results[n] for n in sorted(results))
    print("threads:", len(results), hashlib.sha256(joined.encode()).hexdigest()[:16])
    event = threading.Event()
    timer = threading.Timer(0.05, event.set)
    timer.start()
    print("timer fired:", event.wait(10), "condition timed out:", not threading.Event().wait(0.01))


def subprocesses():
    print("echo:", subprocess.run(["echo", "from a child"], capture_output=True, text=True).stdout.strip())
    pipeline = subprocess.Popen(["sort", "-n"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    out, _ = pipeline.communicate("\n".join(str(n * 37 % 101) for n in range(101)))
    print("sorted:", out.split() == [str(n) for n in range(101)])
    print("status:", subprocess.run(["sh", "-c", "exit 3"]).returncode)
    sleeper = subprocess.Popen(["sleep", "60"])
    sleeper.send_signal(signal.SIGTERM)
    print("terminated:", sleeper.wait())
    try:
        subprocess.run(["/no/such/program"])
    except FileNotFoundError as error:
        print("missing:", error.errno)
    try:
        subprocess.run(["sleep", "60"], timeout=0.1)
    except subprocess.TimeoutExpired:
        print("timeout: expired")


def database():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "demo.db")
        db = sqlite3.connect(path)
        db.execute("pragma journal_mode=wal")
        db.execute("create table item (id integer primary key, name text unique, value real)")
        with db:
            db.executemany("insert into item (name, value) values (?, ?)", ((f"n{i}", i * 0.5) for i in range(2000)))
        try:
            with db:
                db.execute("insert into item (name) values ('n1')")
        except sqlite3.IntegrityError as error:
            print("sqlite refused:", error)
        other = sqlite3.connect(path)
        print("sqlite:", other.execute("select count(*), sum(value), max(name) from item").fetchone())
        other.close()
        db.close()
        print("sqlite file:", os.path.getsize(path) % 4096 == 0)


def square(n):
    return n * n


def bump(counter, lock, times):
    for _ in range(times):
        with lock:
            counter.value += 1


def processes():
    with multiprocessing.Pool(3) as pool:
        print("pool:", sum(pool.map(square, range(500), chunksize=25)))
    counter, lock = multiprocessing.Value("i", 0, lock=False), multiprocessing.Lock()
    crew = [multiprocessing.Process(target=bump, args=(counter, lock, 200)) for _ in range(3)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    print("shared counter:", counter.value, [process.exitcode for process in crew])
    mine, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=lambda: theirs.send({"answer": 42, "data": list(range(5))}))
    child.start()
    print("pipe:", mine.recv())
    child.join()


def signals():
    seen = []
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    deadline = time.monotonic() + 10
    while not seen and time.monotonic() < deadline:
        signal.pause()
    print("alarm:", [signal.Signals(n).name for n in seen])


if __name__ == "__main__":
    print("python", sys.version_info[:2])
    for part in (threads, subprocesses, database, processes, signals):
        part()
        sys.stdout.flush()
