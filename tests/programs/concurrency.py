# limit: 90
# Thread pools, process pools, shared memory, managers, asyncio with children, sockets and signals.
import asyncio, concurrent.futures, multiprocessing, multiprocessing.shared_memory, os, queue, signal, socket, subprocess, sys, threading, time


def work(n):
    return sum(i * i for i in range(n)) % 1000003


def fill(name, start):
    memory = multiprocessing.shared_memory.SharedMemory(name)
    for i in range(100):
        memory.buf[start + i] = (start + i) % 251
    memory.close()


def producer(q, n):
    for i in range(n):
        q.put(i)
    q.put(None)


def meet(barrier, results, index):
    for turn in range(5):
        barrier.wait(30)
        with results.get_lock():
            results[turn] += index


def threads():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        print("thread pool:", sum(pool.map(work, range(200))))
    condition, order = threading.Condition(), []

    def turn(index):
        for round in range(20):
            with condition:
                condition.wait_for(lambda: len(order) % 4 == index)
                order.append(index)
                condition.notify_all()

    crew = [threading.Thread(target=turn, args=(i,)) for i in range(4)]
    for t in crew: t.start()
    for t in crew: t.join()
    print("turns:", order == [0, 1, 2, 3] * 20)
    semaphore = threading.Semaphore(2)
    print("semaphore:", semaphore.acquire(timeout=1), semaphore.acquire(timeout=1), semaphore.acquire(timeout=0.05))


def processes():
    with concurrent.futures.ProcessPoolExecutor(3) as pool:
        print("process pool:", sum(pool.map(work, range(100), chunksize=10)))
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=1000)
    crew = [multiprocessing.Process(target=fill, args=(memory.name, 100 * i)) for i in range(5)]
    for p in crew: p.start()
    for p in crew: p.join()
    print("shared memory:", sum(memory.buf[:500]), memory.buf[500])
    memory.close()
    memory.unlink()
    q = multiprocessing.Queue()
    p = multiprocessing.Process(target=producer, args=(q, 500))
    p.start()
    print("queue:", sum(iter(q.get, None)))
    p.join()
    barrier, results = multiprocessing.Barrier(3), multiprocessing.Array("i", 5)
    crew = [multiprocessing.Process(target=meet, args=(barrier, results, i + 1)) for i in range(3)]
    for p in crew: p.start()
    for p in crew: p.join()
    print("barrier:", results[:])
    with multiprocessing.Manager() as manager:
        shared = manager.dict(a=1)
        p = multiprocessing.Process(target=lambda: shared.update(b=2))
        p.start()
        p.join()
        print("manager:", dict(shared))
    p = multiprocessing.Process(target=time.sleep, args=(100,))
    p.start()
    p.kill()
    p.join()
    print("killed:", p.exitcode)


async def serve():
    async def answer(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, "/tmp/asyncio.sock")

    async def ask(n):
        reader, writer = await asyncio.open_unix_connection("/tmp/asyncio.sock")
        got = []
        for i in range(10):
            writer.write(f"client {n} line {i}\n".encode())
            got.append(await reader.readline())
        writer.close()
        return got[-1]

    print("clients:", (await asyncio.gather(*(ask(n) for n in range(20))))[19])
    server.close()
    child = await asyncio.create_subprocess_exec("sort", "-n", stdin=-1, stdout=-1)
    out, _ = await child.communicate(b"".join(b"%d\n" % (i * 37 % 1009) for i in range(2000)))
    print("child:", child.returncode, len(out.split()), out.split()[-1])
    children = [await asyncio.create_subprocess_shell(f"sleep 0.0{i}; exit {i}") for i in range(8)]
    print("children:", [await c.wait() for c in children])
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.05)
    except asyncio.TimeoutError:
        print("timeout")
    got = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, got.set)
    os.kill(os.getpid(), signal.SIGUSR2)
    await asyncio.wait_for(got.wait(), 10)
    print("signal")
    print("executor:", await asyncio.get_running_loop().run_in_executor(None, work, 5000))
    print("to thread:", await asyncio.to_thread(time.sleep, 0.01))


def subprocesses():
    p = subprocess.run(["sh", "-c", "cat; echo err >&2; exit 4"], input="x" * 200000, capture_output=True, text=True)
    print("run:", len(p.stdout), p.stderr.strip(), p.returncode)
    first = subprocess.Popen(["seq", "100000"], stdout=subprocess.PIPE)
    second = subprocess.Popen(["head", "-2"], stdin=first.stdout, stdout=subprocess.PIPE)
    first.stdout.close()
    print("pipeline:", second.communicate()[0], first.wait())
    p = subprocess.Popen(["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done"], stdout=subprocess.PIPE, start_new_session=True)
    p.stdout.readline()
    os.killpg(p.pid, signal.SIGTERM)
    print("group:", p.wait())
    print("preexec:", subprocess.run(["sh", "-c", "pwd; umask; id -u"], cwd="/usr", umask=0o77, user=1000, extra_groups=[], capture_output=True, text=True).stdout.split())
    print("descriptors:", subprocess.run(["sh", "-c", "ls /proc/self/fd | wc -l"], capture_output=True, text=True).stdout.strip())


threads()
processes()
subprocesses()
asyncio.run(serve())
