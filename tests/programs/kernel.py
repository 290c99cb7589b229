# What Python shows of the kernel: descriptors, polling, locks, memory, processes, limits, clocks.
import contextlib, ctypes, errno, fcntl, mmap, os, resource, select, selectors, signal, socket, struct, sys, tempfile, threading, time


def why(call, *args, **named):
    try:
        return call(*args, **named)
    except OSError as error:
        return errno.errorcode[error.errno]


folder = tempfile.mkdtemp()
os.chdir(folder)
print("open:", why(os.open, "none", os.O_RDONLY), why(os.open, ".", os.O_WRONLY), why(os.open, "x" * 300, os.O_RDONLY))
fd = os.open("file", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
print("exclusive:", why(os.open, "file", os.O_CREAT | os.O_EXCL))
print("vectors:", os.writev(fd, [b"one", b"", b"two"]), os.preadv(fd, [bytearray(2), bytearray(3)], 1), os.pwrite(fd, b"Z", 9))
print("sparse:", os.lseek(fd, 0, os.SEEK_END), os.pread(fd, 20, 0), why(os.lseek, fd, -1, os.SEEK_SET))
other = os.open("other", os.O_RDWR | os.O_CREAT)
print("sendfile:", os.sendfile(other, fd, 0, 100), "copy:", os.copy_file_range(fd, other, 4, 2), os.fstat(other).st_size)
print("flags:", fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE, fcntl.fcntl(fd, fcntl.F_GETFD), os.get_inheritable(fd))
os.posix_fallocate(other, 0, 5000)
os.truncate("other", 100)
print("sizes:", os.stat("other").st_size, why(os.truncate, "other", -1))
r, w = os.pipe2(os.O_NONBLOCK)
total = 0
with contextlib.suppress(BlockingIOError):
    while True:
        total += os.write(w, b"x" * 4096)
print("pipe:", total, why(os.read, os.pipe2(os.O_NONBLOCK)[0], 1), why(fcntl.fcntl, w, fcntl.F_SETPIPE_SZ, 5000), fcntl.fcntl(os.pipe()[1], fcntl.F_SETPIPE_SZ, 5000))
a, b = os.pipe()
os.write(b, b"spliced")
print("splice:", os.splice(a, other, 100, offset_dst=0), os.pread(other, 7, 0))

poll = select.poll()
poll.register(r, select.POLLIN)
poll.register(w, select.POLLOUT)
poll.register(b, select.POLLOUT)
print("poll:", sorted((f in (r,), e) for f, e in poll.poll(0)))
epoll = select.epoll()
one, two = socket.socketpair()
epoll.register(one, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)
two.send(b"x")
print("epoll:", [e for _, e in epoll.poll(5)], epoll.poll(0.01))
two.close()
print("hang-up:", [hex(e) for _, e in epoll.poll(5)], why(epoll.register, one, select.EPOLLIN))
event = os.eventfd(3, os.EFD_SEMAPHORE | os.EFD_NONBLOCK) if hasattr(os, "eventfd") else None
print("eventfd:", [why(os.eventfd_read, event) for _ in range(4)])
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
socket.send_fds(left, [b"take"], [fd, event])
message, fds, flags, _ = socket.recv_fds(right, 10, 4)
print("descriptors:", message, len(fds), os.path.sameopenfile(fds[0], fd), flags)
print("credentials:", struct.unpack("3i", right.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1:])
server = socket.socket(socket.AF_UNIX)
server.bind("listen")
server.listen(1)
client = socket.socket(socket.AF_UNIX)
client.connect(folder + "/listen")
peer, address = server.accept()
client.sendall(b"hello")
client.shutdown(socket.SHUT_WR)
print("stream:", peer.recv(100), peer.recv(100), repr(address), why(socket.socket(socket.AF_UNIX).connect, "none"))
datagrams = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
datagrams[0].bind("\0abstract")
datagrams[1].sendto(b"datagram", "\0abstract")
print("datagram:", datagrams[0].recvfrom(4))

print("flock:", fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB), why(fcntl.flock, os.open("file", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB))
fcntl.lockf(other, fcntl.LOCK_EX, 10, 5)
if os.fork() == 0:
    mine = os.open("other", os.O_RDWR)
    os._exit(0 if (why(fcntl.lockf, mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14), why(fcntl.lockf, mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 15)) == ("EAGAIN", None) else 1)
print("record locks:", os.wait()[1])

memory = mmap.mmap(-1, 1 << 20)
memory[5:10] = b"fresh"
if os.fork() == 0:
    memory[5:10] = b"child"
    os._exit(0)
os.wait()
os.truncate(fd, 5000)
private = mmap.mmap(fd, 4096, mmap.MAP_PRIVATE)
private[:3] = b"mine"[:3]
memory.madvise(mmap.MADV_DONTNEED)
print("mmap:", memory[5:10], private[:6], os.pread(fd, 6, 0), memory.resize(2 << 20), len(memory), memory.flush())
memfd = os.memfd_create("name", os.MFD_ALLOW_SEALING)
os.write(memfd, b"sealed")
fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
print("memfd:", why(os.write, memfd, b"x"), why(os.ftruncate, memfd, 0), fcntl.fcntl(memfd, fcntl.F_GET_SEALS), os.readlink(f"/proc/self/fd/{memfd}"))

os.mkdir("dir")
d = os.open("dir", os.O_DIRECTORY)
os.symlink("../file", "link", dir_fd=d)
os.link("file", "hard", dst_dir_fd=d)
print("at:", os.readlink("link", dir_fd=d), os.stat("hard", dir_fd=d).st_nlink, os.access("hard", os.X_OK, dir_fd=d), sorted(os.listdir(d)))
os.setxattr("file", "user.name", b"value")
print("xattr:", os.listxattr("file"), os.getxattr("dir/hard", "user.name"), why(os.getxattr, "file", "user.none"))
os.utime("file", ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))
print("times:", os.stat("file").st_atime_ns, os.stat("file").st_mtime_ns)
print("rename:", why(os.rename, "dir", "dir/below"), why(os.rename, "file", "dir"), why(os.rmdir, "dir"), os.rename("other", "dir/other"))

pid = os.fork()
if pid == 0:
    signal.pause()
pidfd = os.pidfd_open(pid)
print("alive:", select.select([pidfd], [], [], 0)[0], os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG))
signal.pidfd_send_signal(pidfd, signal.SIGTERM)
print("ended:", select.select([pidfd], [], [], 5)[0] == [pidfd], os.waitid(os.P_PIDFD, pidfd, os.WEXITED)[2:5])
child = os.posix_spawn("/bin/sh", ["sh", "-c", "echo spawned; exit 6"], {"PATH": "/bin"}, file_actions=[(os.POSIX_SPAWN_DUP2, b, 1)], setsigmask=[signal.SIGUSR1])
print("spawn:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), os.read(a, 100))
print("groups:", os.getpgid(0) == os.getpgrp(), why(os.setpgid, 0, 99999), why(os.kill, 99999, 0), why(os.waitpid, -1, 0))
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print("usage:", usage.ru_maxrss > 1000, usage.ru_utime >= 0)
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
print("limits:", resource.getrlimit(resource.RLIMIT_NOFILE)[0], why(lambda: [os.dup(0) for _ in range(100)]))
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 20))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
print("file size:", os.pwrite(fd, b"y" * 100, 5), why(os.pwrite, fd, b"y", 10))

seen = []
signal.signal(signal.SIGUSR1, lambda n, f: seen.append(n))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGRTMIN])
os.kill(os.getpid(), signal.SIGUSR1)
print("pending:", signal.sigpending() == {signal.SIGUSR1}, signal.sigtimedwait([signal.SIGRTMIN], 0.01))
print("taken:", signal.sigwaitinfo([signal.SIGUSR1]).si_signo == signal.SIGUSR1, seen)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
until = time.monotonic() + 10
while len(seen) < 3 and time.monotonic() < until:
    time.sleep(1)
signal.setitimer(signal.ITIMER_REAL, 0)
print("alarms:", seen[:3])
start, cpu = time.monotonic(), time.process_time()
time.sleep(0.05)
print("clocks:", time.monotonic() - start >= 0.05, time.process_time() - cpu < 0.05, abs(time.time() - time.clock_gettime(time.CLOCK_REALTIME)) < 1)
print("names:", os.uname().sysname, os.uname().machine, os.uname().nodename, os.cpu_count() > 0, len(os.sched_getaffinity(0)) > 0)
print("random:", len(os.getrandom(16)), len(os.urandom(1000)), os.getloadavg()[0] >= 0)
libc = ctypes.CDLL(None, use_errno=True)
print("prctl:", libc.prctl(15, b"renamed"), open("/proc/self/comm").read().strip(), libc.prctl(38, 1, 0, 0, 0), libc.prctl(39, 0, 0, 0, 0))
print("unknown call:", libc.syscall(9999), errno.errorcode[ctypes.get_errno()])
