# An initialised Python: threads, queues, sockets, an event loop, subprocesses, temporary files.
import asyncio, hashlib, json, os, queue, random, re, selectors, socket, sqlite3, subprocess, sys, tempfile, threading, time

sys.stdout.reconfigure(line_buffering=True)
work, done = queue.Queue(), queue.Queue()


def worker():
    while True:
        item = work.get()
        if item is None:
            return
        done.put(item * item)


threads = [threading.Thread(target=worker) for _ in range(4)]
for t in threads:
    t.start()
event = threading.Event()
results = []
waiter = threading.Thread(target=lambda: results.append(event.wait(60)))
waiter.start()
table = {str(i): hashlib.sha256(str(i).encode()).hexdigest() for i in range(20000)}
left, right = socket.socketpair()
left.sendall(b"queued")
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/server")
server.listen()
selector = selectors.DefaultSelector()
selector.register(right, selectors.EVENT_READ, "right")
selector.register(server, selectors.EVENT_READ, "server")
temporary = tempfile.TemporaryFile()
temporary.write(b"temporary")
temporary.flush()
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
random.seed(5)
drawn = random.random()
memory = bytearray(b"m" * 5_000_000)
started = time.monotonic()

print("--- ready")
try:
    with open("/proc/nanovisor/checkpoint", "w") as f:
        f.write("ready")
except FileNotFoundError:
    pass

print("threads", threading.active_count())
for i in range(100):
    work.put(i)
print("squares", sum(done.get() for _ in range(100)))
event.set()
waiter.join()
print("event", results)
print("table", table["12345"][:16], len(table), memory.count(b"m"))
client = socket.socket(socket.AF_UNIX)
client.connect("/tmp/server")
print("ready", sorted(key.data for key, _ in selector.select(5)), right.recv(100))
connection, _ = server.accept()
client.sendall(b"over the socket")
print("socket", connection.recv(100))
temporary.seek(0)
print("file", temporary.read())
print("child", child.communicate(b"through cat")[0], child.returncode)
print("random", random.random() != drawn, len(os.urandom(16)))
print("time", 0 <= time.monotonic() - started < 60)


async def main():
    await asyncio.sleep(0.01)
    process = await asyncio.create_subprocess_exec("/bin/echo", "a new process", stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0]


print("asyncio", asyncio.run(main()))
base = sqlite3.connect(":memory:")
base.execute("create table t (a, b)")
base.executemany("insert into t values (?, ?)", [(i, i * 2) for i in range(1000)])
print("sqlite", base.execute("select sum(b) from t").fetchone(), json.dumps({"a": [1, 2]}), bool(re.match("a+", "aaa")))
for _ in threads:
    work.put(None)
for t in threads:
    t.join()
print("threads", threading.active_count())
