// Ptys with both ends inside: lines typed and not read, output not taken, settings, job control, readers that wait.
#include "ckpt.h"
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>

static volatile sig_atomic_t interrupted;

static void on_int(int s)
{
    (void)s;
    interrupted++;
}

static void put(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) DIE("write");
}

static void show(const char *what, int fd)
{
    char buf[256];
    ssize_t n = read(fd, buf, sizeof buf);
    printf("%s %zd:", what, n);
    for (ssize_t i = 0; i < n; i++) printf(buf[i] >= ' ' ? "%c" : "\\%d", buf[i]);
    printf("\n");
}

int main(void)
{
    setvbuf(stdout, 0, _IONBF, 0);
    int master, slave, raw, raw_slave;
    struct winsize size = {33, 77, 5, 6};
    if (openpty(&master, &slave, 0, 0, &size) || openpty(&raw, &raw_slave, 0, 0, 0)) DIE("openpty");
    struct termios t;
    tcgetattr(raw_slave, &t);
    cfmakeraw(&t);
    t.c_cc[VMIN] = 3;
    t.c_cc[VTIME] = 0;
    tcsetattr(raw_slave, TCSANOW, &t);
    // Natively echoes come when they come.
    struct termios quiet;
    tcgetattr(slave, &quiet);
    quiet.c_lflag &= ~ECHO;
    tcsetattr(slave, TCSANOW, &quiet);
    put(master, "a line\nhalf");
    put(slave, "out\n");
    // A session of its own with the terminal, whose program waits for a line.
    int jm, js, done[2];
    if (openpty(&jm, &js, 0, 0, 0) || pipe(done)) DIE("openpty");
    pid_t child = fork();
    if (!child) {
        setsid();
        if (ioctl(js, TIOCSCTTY, 0)) DIE("TIOCSCTTY");
        struct sigaction act = {.sa_handler = on_int};
        sigaction(SIGINT, &act, 0);
        char buf[64] = {0};
        ssize_t n = read(js, buf, sizeof buf);
        int e = errno;
        int tty = open("/dev/tty", O_RDWR);
        dprintf(done[1], "read %zd %s, interrupted %d, foreground %d, /dev/tty %d\n", n,
                n < 0 ? strerrorname_np(e) : buf, interrupted, tcgetpgrp(tty) == getpid(), tty >= 0);
        n = read(tty, buf, 5);
        dprintf(done[1], "then %zd %.5s\n", n, buf);
        _exit(7);
    }
    until_asleep(child, child);
    pid_t reader = fork();
    if (!reader) {
        char buf[16] = {0};
        ssize_t n = read(raw_slave, buf, sizeof buf);
        dprintf(done[1], "raw %zd %s\n", n, buf);
        _exit(0);
    }
    put(raw, "x");
    until_asleep(reader, reader);
    ready();
    struct winsize now;
    ioctl(slave, TIOCGWINSZ, &now);
    printf("size %d %d %d %d\n", now.ws_row, now.ws_col, now.ws_xpixel, now.ws_ypixel);
    struct stat st;
    printf("named %d, a tty %d\n", !stat(ptsname(master), &st) && S_ISCHR(st.st_mode), isatty(slave));
    show("the line", slave);
    put(master, " more\n");
    show("the rest", slave);
    show("the output", master);
    struct pollfd p = {slave, POLLIN | POLLOUT, 0};
    SHOW("poll", poll(&p, 1, 0));
    printf("events %x\n", p.revents);
    put(raw, "yz");
    show("said", done[0]);
    if (waitpid(reader, 0, 0) != reader) DIE("wait");
    put(jm, "\003");
    show("said", done[0]);
    put(jm, "typed\n");
    show("said", done[0]);
    int status;
    waitpid(child, &status, 0);
    printf("exit %d\n", WEXITSTATUS(status));
    show("echoed", jm);
    close(master);
    SHOW("hung up", read(slave, &size, 1));
    SHOW("write", write(slave, "x", 1));
    return 0;
}
