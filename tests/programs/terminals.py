# Pseudo-terminals from Python: pty.spawn, pty.fork, openpty, termios, window sizes, sessions.
import array, errno, fcntl, os, pty, select, signal, struct, sys, termios, time, tty


def read_all(fd, limit=10):
    data, until = b"", time.monotonic() + limit
    while time.monotonic() < until:
        try:
            if not select.select([fd], [], [], 0.5)[0]:
                continue
            chunk = os.read(fd, 1000)
        except OSError as error:
            return data, errno.errorcode[error.errno]
        if not chunk:
            return data, "EOF"
        data += chunk
    return data, "timeout"


left = {}


def until(fd, text):
    """What is read up to and with `text`; the rest stays for the next call."""
    data = left.pop(fd, b"")
    while text not in data:
        data += os.read(fd, 1000)
    end = data.index(text) + len(text)
    left[fd] = data[end:]
    return data[:end]


print("forked:", end=" ", flush=True)
pid, master = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "test -t 0 && tty | grep -c ^/dev/pts/; stty size; exit 3"])
print(*read_all(master), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.close(master)

master, slave = pty.openpty()
print("names:", os.ttyname(slave).startswith("/dev/pts/"), os.isatty(slave), os.isatty(master))
print("same device:", os.fstat(slave).st_rdev == os.stat(os.ttyname(slave)).st_rdev)
os.write(master, b"line\n")
print("cooked:", os.read(slave, 100), until(master, b"\n"))
os.write(master, b"ab\x7fc\x15xy\x17z\n")
print("edited:", os.read(slave, 100))
print("echoed:", until(master, b"z\r\n"))
os.write(slave, b"out\n")
print("output:", until(master, b"\n"))
attrs = termios.tcgetattr(slave)
print("flags:", [hex(a) for a in attrs[:4]], attrs[4:6] == [termios.B38400] * 2)
print("characters:", attrs[6])
tty.setraw(slave)
os.write(master, b"\x03\r\n\x04")
print("raw:", os.read(slave, 100))
attrs = termios.tcgetattr(slave)
attrs[6][termios.VMIN], attrs[6][termios.VTIME] = 0, 1
termios.tcsetattr(slave, termios.TCSANOW, attrs)
print("nothing within a tenth of a second:", os.read(slave, 100))
attrs[6][termios.VMIN], attrs[6][termios.VTIME] = 3, 0
termios.tcsetattr(slave, termios.TCSANOW, attrs)
os.write(master, b"12")
print("two of three:", select.select([slave], [], [], 0.05)[0])
os.write(master, b"3")
print("three of three:", select.select([slave], [], [], 5)[0] == [slave], os.read(slave, 10))
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 5, 6))
print("size:", struct.unpack("HHHH", fcntl.ioctl(slave, termios.TIOCGWINSZ, b"\0" * 8)), os.get_terminal_size(slave))
os.write(master, b"queued")
# The master hands input over at leisure.
select.select([slave], [], [], 5)
count = array.array("i", [0])
fcntl.ioctl(slave, termios.FIONREAD, count)
print("queued:", count[0])
termios.tcflush(slave, termios.TCIFLUSH)
fcntl.ioctl(slave, termios.FIONREAD, count)
print("flushed:", count[0])
fcntl.ioctl(master, termios.TIOCPKT, struct.pack("i", 1))
os.write(slave, b"packet")
print("packet:", os.read(master, 100))
fcntl.ioctl(master, termios.TIOCPKT, struct.pack("i", 0))
os.close(slave)
print("hung up:", read_all(master))
os.close(master)

# A session that owns its terminal: signals by keys, changes of size, foreground groups, hang-up.
pid, master = pty.fork()
if pid == 0:
    signal.signal(signal.SIGINT, lambda *_: os.write(1, b"INT\n"))
    signal.signal(signal.SIGQUIT, lambda *_: os.write(1, b"QUIT\n"))
    signal.signal(signal.SIGTSTP, lambda *_: os.write(1, b"TSTP\n"))
    signal.signal(signal.SIGWINCH, lambda *_: os.write(1, b"WINCH %d %d\n" % tuple(os.get_terminal_size(0))))
    signal.signal(signal.SIGHUP, lambda *_: os._exit(5))
    os.write(1, b"group %d session %d\n" % (os.tcgetpgrp(0) == os.getpgrp(), os.getsid(0) == os.getpid()))
    while True:
        signal.pause()
print("child:", until(master, b"\n"))
for key in (b"\x03", b"\x1c", b"\x1a"):
    os.write(master, key)
    print("key:", until(master, b"\n").strip())
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 22, 0, 0))
print("size:", until(master, b"WINCH 22 11\r\n") is not None)
os.close(master)
left.clear()
print("hang-up:", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def background(fd):
    """A child in a group of its own, not the foreground's, that reads the terminal."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            os.write(1, b"read %d\n" % len(os.read(0, 10)))
        except OSError as error:
            os.write(1, errno.errorcode[error.errno].encode() + b"\n")
        os._exit(0)
    status = os.waitpid(child, os.WUNTRACED)[1]
    os.write(1, b"stopped %s\n" % signal.Signals(os.WSTOPSIG(status)).name.encode())
    os.tcsetpgrp(0, child)
    os.kill(child, signal.SIGCONT)
    os.write(1, b"go\n")
    os.waitpid(child, 0)
    os.tcsetpgrp(0, os.getpgrp())
    os._exit(0)


pid, master = pty.fork()
if pid == 0:
    background(0)
print("background:", until(master, b"stopped SIGTTIN\r\n"))
until(master, b"go\r\n")
os.write(master, b"typed\n")
print("foreground:", until(master, b"read 6\r\n").replace(b"typed\r\n", b""))
os.waitpid(pid, 0)
os.close(master)

script = "import sys; print(sys.stdin.isatty(), sys.stdout.isatty()); sys.exit(2)"
sys.stdout.flush()
print("spawn:", os.waitstatus_to_exitcode(pty.spawn([sys.executable, "-c", script])))
masters = [pty.openpty() for _ in range(50)]
print("many:", len({os.ttyname(s) for _, s in masters}))
