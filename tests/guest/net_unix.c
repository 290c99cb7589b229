// Unix sockets: names, kinds, control messages, options, errors.
// flags: -Wno-stringop-overflow
#include "t.h"
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <linux/sockios.h>

static struct sockaddr_un addr(const char *path, socklen_t *len) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(path + (*path == '@'));
    memcpy(a.sun_path + (*path == '@'), path + (*path == '@'), n);
    *len = offsetof(struct sockaddr_un, sun_path) + n + 1;
    return a;
}
static int bind_to(int s, const char *path) {
    socklen_t len;
    struct sockaddr_un a = addr(path, &len);
    return bind(s, (void *)&a, len);
}
static int connect_to(int s, const char *path) {
    socklen_t len;
    struct sockaddr_un a = addr(path, &len);
    return connect(s, (void *)&a, len);
}
static int option(int s, int name) {
    int v = -1;
    socklen_t len = sizeof v;
    return getsockopt(s, SOL_SOCKET, name, &v, &len) < 0 ? -errno : v;
}
static short events(int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    poll(&p, 1, 0);
    return p.revents;
}

static void making(void) {
    SHOW("bad domain", socket(99, SOCK_STREAM, 0));
    SHOW("negative domain", socket(-1, SOCK_STREAM, 0));
    SHOW("bad type", socket(AF_UNIX, 9, 0));
    SHOW("bad flags", socket(AF_UNIX, SOCK_STREAM | 0x100, 0));
    SHOW("bad protocol", socket(AF_UNIX, SOCK_STREAM, 17));
    TRY("protocol PF_UNIX", socket(AF_UNIX, SOCK_STREAM, 1));
    int p[2];
    SHOW("pair to nowhere", socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)8));
    SHOW("pair", socketpair(AF_UNIX, SOCK_RAW, 0, p));
    CHECK("a raw one is a datagram one", option(p[0], SO_TYPE) == SOCK_DGRAM);
    CHECK("domain, protocol", option(p[0], SO_DOMAIN) == AF_UNIX && option(p[0], SO_PROTOCOL) == 0);
    CHECK("not a socket", (errno = 0, listen(1, 1) == -1 && (errno == ENOTSOCK)));
    SHOW("not open", listen(99, 1));
    CHECK("cloexec", fcntl(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), F_GETFD) == 1);
    SHOW("SO_ERROR set", setsockopt(p[0], SOL_SOCKET, SO_ERROR, &(int){1}, 4));
    SHOW("option unknown", option(p[0], 9999));
    SHOW("option short", setsockopt(p[0], SOL_SOCKET, SO_PASSCRED, &(int){1}, 1));
    struct timeval tv = {0, 2000000};
    SHOW("timeout out of range", setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    setsockopt(p[0], SOL_SOCKET, SO_SNDBUF, &(int){10000}, 4);
    CHECK("SO_SNDBUF doubles", option(p[0], SO_SNDBUF) == 20000);
    setsockopt(p[0], SOL_SOCKET, SO_RCVBUF, &(int){1}, 4);
    CHECK("SO_RCVBUF has a least", option(p[0], SO_RCVBUF) == 2304);
    setsockopt(p[0], SOL_SOCKET, SO_SNDBUF, &(int){1}, 4);
    CHECK("SO_SNDBUF has a least", option(p[0], SO_SNDBUF) == 4608);
    setsockopt(p[0], SOL_SOCKET, SO_REUSEADDR, &(int){5}, 4);
    CHECK("SO_REUSEADDR is kept", option(p[0], SO_REUSEADDR) == 1);
    SHOW("SO_REUSEPORT", setsockopt(p[0], SOL_SOCKET, SO_REUSEPORT, &(int){1}, 4));
    SHOW("SO_SNDLOWAT", setsockopt(p[0], SOL_SOCKET, SO_SNDLOWAT, &(int){1}, 4));
    SHOW("SO_KEEPALIVE short", setsockopt(p[0], SOL_SOCKET, SO_KEEPALIVE, "x", 1));
    setsockopt(p[0], SOL_SOCKET, SO_SNDBUF, &(int){1 << 30}, 4);
    // net.core.wmem_max is 4 MiB on newer kernels.
    CHECK("SO_SNDBUF has a most", option(p[0], SO_SNDBUF) >= 2 * 212992 && option(p[0], SO_SNDBUF) <= 8 << 20);
    setsockopt(p[0], SOL_SOCKET, SO_RCVBUF, &(int){-1}, 4);
    CHECK("SO_RCVBUF negative is the most", option(p[0], SO_RCVBUF) >= 2 * 212992);
    setsockopt(p[0], SOL_SOCKET, SO_RCVLOWAT, &(int){0}, 4);
    CHECK("SO_RCVLOWAT is 1 at least", option(p[0], SO_RCVLOWAT) == 1);
    setsockopt(p[0], SOL_SOCKET, SO_PRIORITY, &(int){4}, 4);
    CHECK("SO_PRIORITY is kept", option(p[0], SO_PRIORITY) == 4);
    struct linger l = {1, 7};
    setsockopt(p[0], SOL_SOCKET, SO_LINGER, &l, sizeof l);
    l = (struct linger){0, 9};
    setsockopt(p[0], SOL_SOCKET, SO_LINGER, &l, sizeof l);
    socklen_t len = sizeof l;
    CHECK("SO_LINGER off keeps its time", getsockopt(p[0], SOL_SOCKET, SO_LINGER, &l, &len) == 0 && !l.l_onoff && l.l_linger == 7);
    static char big[8192];
    setsockopt(p[0], SOL_SOCKET, SO_SNDBUF, &(int){1}, 4);
    SHOW("a datagram over the send buffer", send(p[0], big, 4608, 0));
    int q[2];
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, q);
    setsockopt(q[0], SOL_SOCKET, SO_SNDBUF, &(int){8192}, 4);
    long sent = 0, n;
    while ((n = write(q[0], big, 1000)) > 0) sent += n;
    CHECK("a stream's send buffer bounds what waits", n == -1 && errno == EAGAIN && sent >= 4000 && sent <= 40000);
}

static void names(void) {
    char buf[200];
    struct sockaddr_un a;
    socklen_t len;
    unlink("/tmp/u1");
    int s = socket(AF_UNIX, SOCK_STREAM, 0), t = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0);
    len = sizeof a;
    CHECK("unnamed", getsockname(s, (void *)&a, &len) == 0 && len == 2);
    SHOW("no peer name", getpeername(s, (void *)&a, (len = sizeof a, &len)));
    SHOW("listen unbound", listen(s, 1));
    SHOW("bind", bind_to(s, "/tmp/u1"));
    struct stat st;
    CHECK("a socket inode", stat("/tmp/u1", &st) == 0 && S_ISSOCK(st.st_mode));
    SHOW("open of it", open("/tmp/u1", O_RDWR));
    SHOW("bind twice", bind_to(s, "/tmp/u2"));
    SHOW("bind to a taken path", bind_to(t, "/tmp/u1"));
    SHOW("bind below nothing", bind_to(t, "/tmp/none/u"));
    len = sizeof a;
    CHECK("its name", getsockname(s, (void *)&a, &len) == 0 && len == 2 + 8 && strcmp(a.sun_path, "/tmp/u1") == 0);
    SHOW("connect before listen", connect_to(t, "/tmp/u1"));
    SHOW("connect to nothing", connect_to(t, "/tmp/u9"));
    SHOW("connect to a file", connect_to(t, "/etc"));
    SHOW("connect of another type", connect_to(d, "/tmp/u1"));
    SHOW("listen", listen(s, 0));
    SHOW("accept none", (fcntl(s, F_SETFL, O_NONBLOCK), accept(s, NULL, NULL)));
    SHOW("connect", connect_to(t, "/tmp/u1"));
    int t2 = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), t3 = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SHOW("the backlog is full", (connect_to(t2, "/tmp/u1"), connect_to(t3, "/tmp/u1")));
    len = sizeof a;
    int c = accept(s, (void *)&a, &len);
    CHECK("accepted, unnamed peer", c >= 0 && len == 2);
    len = sizeof a;
    CHECK("peer's name", getpeername(t, (void *)&a, &len) == 0 && strcmp(a.sun_path, "/tmp/u1") == 0);
    CHECK("accepted has the listener's name", (len = sizeof a, getsockname(c, (void *)&a, &len)) == 0 && strcmp(a.sun_path, "/tmp/u1") == 0);
    CHECK("talks", write(t, "hi", 2) == 2 && read(c, buf, 9) == 2);
    unlink("/tmp/u1");
    int ab = socket(AF_UNIX, SOCK_DGRAM, 0), ab2 = socket(AF_UNIX, SOCK_DGRAM, 0);
    SHOW("abstract", bind_to(ab, "@nv-test"));
    SHOW("abstract taken", bind_to(ab2, "@nv-test"));
    sa_family_t family = AF_UNIX;
    SHOW("autobind", bind(ab2, (void *)&family, sizeof family));
    len = sizeof a;
    CHECK("five digits", getsockname(ab2, (void *)&a, &len) == 0 && len == 2 + 6 && a.sun_path[0] == 0);
    SHOW("send to a name", (connect_to(ab2, "@nv-test"), send(ab2, "x", 1, 0)));
    len = sizeof a;
    CHECK("sender's name", recvfrom(ab, buf, 9, 0, (void *)&a, &len) == 1 && len == 8);
    close(ab);
    SHOW("receiver gone", send(ab2, "x", 1, 0));
    SHOW("name gone", connect_to(ab2, "@nv-test"));
    family = AF_INET;
    SHOW("bind another family", bind(d, (void *)&family, 20));
    SHOW("address too long", bind(d, (void *)&a, 200));
    SHOW("address too short", bind(d, (void *)&a, 1));
    SHOW("send without destination", send(d, "x", 1, 0));
    SHOW("accept of datagrams", accept(d, NULL, NULL));
    SHOW("listen of datagrams", listen(d, 1));
}

static void streams(void) {
    int p[2];
    char buf[64] = {0};
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    CHECK("joined", write(p[0], "abc", 3) == 3 && write(p[0], "def", 3) == 3 && recv(p[1], buf, 5, MSG_PEEK) == 5 && read(p[1], buf, 9) == 6);
    int n = -1;
    if (write(p[0], "12345", 5) != 5) DIE("write");
    CHECK("SIOCINQ", ioctl(p[1], SIOCINQ, &n) == 0 && n == 5);
    CHECK("SIOCOUTQ", ioctl(p[0], SIOCOUTQ, &n) == 0 && n > 0 && ioctl(p[1], SIOCOUTQ, &n) == 0 && n == 0);
    CHECK("events", events(p[1]) == (POLLIN | POLLOUT) && events(p[0]) == POLLOUT);
    CHECK("truncated read", recv(p[1], buf, 2, MSG_TRUNC) == 2 && read(p[1], buf, 9) == 3);
    SHOW("nothing", recv(p[1], buf, 9, MSG_DONTWAIT));
    SHOW("zero bytes", send(p[0], "", 0, 0));
    TRY("out of band", send(p[0], "x", 1, MSG_OOB) == -1 && errno != EOPNOTSUPP ? -1 : 0);
    if (fork() == 0) {
        if (write(p[0], "ab", 2) != 2) _exit(1);
        usleep(20000);
        if (write(p[0], "cd", 2) != 2) _exit(1);
        _exit(0);
    }
    CHECK("waitall", recv(p[1], buf, 4, MSG_WAITALL) == 4 && memcmp(buf, "abcd", 4) == 0);
    wait(NULL);
    shutdown(p[0], SHUT_WR);
    CHECK("half shut", read(p[1], buf, 9) == 0 && (events(p[1]) & (POLLIN | POLLRDHUP | POLLHUP)) == (POLLIN | POLLRDHUP));
    signal(SIGPIPE, SIG_IGN);
    SHOW("write after shutdown", write(p[0], "x", 1));
    CHECK("the other half works", write(p[1], "y", 1) == 1 && read(p[0], buf, 9) == 1);
    SHOW("shutdown bad", shutdown(p[0], 7));
    close(p[1]);
    CHECK("peer gone", (events(p[0]) & POLLHUP) && read(p[0], buf, 9) == 0);
    SHOW("write to nobody", write(p[0], "x", 1));
    close(p[0]);
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    if (write(p[1], "unread", 6) != 6) DIE("write");
    close(p[0]);
    SHOW("reset", read(p[1], buf, 9));
    SHOW("then the end", read(p[1], buf, 9));
    close(p[1]);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    SHOW("read unconnected", read(s, buf, 1));
    SHOW("write unconnected", write(s, buf, 1));
    CHECK("events unconnected", events(s) == (POLLOUT | POLLHUP));
    SHOW("shutdown unconnected", shutdown(s, SHUT_RD));
}

static void packets(void) {
    int p[2];
    char buf[64] = {0};
    for (int kind = SOCK_DGRAM; kind != 0; kind = kind == SOCK_DGRAM ? SOCK_SEQPACKET : 0) {
        socketpair(AF_UNIX, kind, 0, p);
        CHECK("apart", send(p[0], "abc", 3, 0) == 3 && send(p[0], "de", 2, 0) == 2 && recv(p[1], buf, 9, 0) == 3 && recv(p[1], buf, 9, 0) == 2);
        struct iovec iov = {buf, 2};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
        CHECK("cut", send(p[0], "abcde", 5, 0) == 5 && recvmsg(p[1], &m, 0) == 2 && (m.msg_flags & MSG_TRUNC));
        CHECK("full length", send(p[0], "abcde", 5, 0) == 5 && recv(p[1], buf, 2, MSG_TRUNC | MSG_PEEK) == 5 && recv(p[1], buf, 9, 0) == 5);
        CHECK("empty", send(p[0], "", 0, 0) == 0 && recv(p[1], buf, 9, MSG_DONTWAIT) == 0);
        static char big[1 << 20];
        SHOW("too big", send(p[0], big, sizeof big, 0));
        int n = 0;
        while (send(p[0], "x", 1, MSG_DONTWAIT) == 1) n++;
        CHECK("full", n > 1 && errno == EAGAIN && !(events(p[0]) & POLLOUT));
        close(p[1]);
        SHOW("nobody", send(p[0], "x", 1, MSG_NOSIGNAL));
        close(p[0]);
    }
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    CHECK("reset", write(p[0], "x", 1) == 1 && close(p[1]) == 0 && (events(p[0]), option(p[0], SO_ERROR)) == ECONNRESET && option(p[0], SO_ERROR) == 0);
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    struct pollfd reset = {p[0], POLLIN, 0};
    CHECK("reset is an event", write(p[0], "x", 1) == 1 && close(p[1]) == 0 && poll(&reset, 1, 0) == 1 && (reset.revents & POLLERR));
    SHOW("reset read", read(p[0], buf, 9));
    SHOW("reset read again", read(p[0], buf, 9));
    struct mmsghdr m[3] = {0};
    struct iovec iov[3];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
    for (int i = 0; i < 3; i++) iov[i] = (struct iovec){buf + 8 * i, 4}, m[i].msg_hdr.msg_iov = &iov[i], m[i].msg_hdr.msg_iovlen = 1;
    SHOW("sendmmsg", sendmmsg(p[0], m, 3, 0));
    CHECK("lengths", m[0].msg_len == 4 && m[2].msg_len == 4);
    SHOW("recvmmsg", recvmmsg(p[1], m, 3, MSG_WAITFORONE, NULL));
    SHOW("recvmmsg none", recvmmsg(p[1], m, 3, MSG_DONTWAIT, NULL));
}

static ssize_t pass(int s, int kind, const void *data, size_t len, const char *bytes) {
    char control[200] = {0};
    struct iovec iov = {(void *)bytes, strlen(bytes)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(len)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = kind, c->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(c), data, len);
    return sendmsg(s, &m, 0);
}
static int take(int s, void *data, size_t room, int flags, int *mflags, char *bytes) {
    char control[200];
    struct iovec iov = {bytes, 20};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = room ? CMSG_LEN(room) : 0};
    memset(bytes, 0, 20);
    if (recvmsg(s, &m, flags) < 0) return -errno;
    *mflags = m.msg_flags;
    struct cmsghdr *c = m.msg_controllen >= sizeof *c ? CMSG_FIRSTHDR(&m) : NULL;
    if (!c) return 0;
    memcpy(data, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    return c->cmsg_type * 1000 + (int)(c->cmsg_len - CMSG_LEN(0));
}

static void controls(void) {
    int p[2], q[2], got[10], flags;
    char buf[32];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    if (pipe(q)) DIE("pipe");
    SHOW("bad descriptor", pass(p[0], SCM_RIGHTS, &(int){99}, 4, "x"));
    SHOW("bad kind", pass(p[0], 77, &(int){99}, 4, "x"));
    SHOW("passed", pass(p[0], SCM_RIGHTS, q, 8, "two"));
    CHECK("both", take(p[1], got, 40, MSG_CMSG_CLOEXEC, &flags, buf) == 1008 && strcmp(buf, "two") == 0);
    CHECK("cloexec", fcntl(got[0], F_GETFD) == 1 && (flags & MSG_CMSG_CLOEXEC));
    CHECK("the same pipe", write(got[1], "z", 1) == 1 && read(q[0], buf, 9) == 1);
    pass(p[0], SCM_RIGHTS, q, 8, "two");
    CHECK("room for one", take(p[1], got, 4, 0, &flags, buf) == 1004 && (flags & MSG_CTRUNC));
    pass(p[0], SCM_RIGHTS, q, 8, "two");
    CHECK("no room", take(p[1], got, 0, 0, &flags, buf) == 0 && (flags & MSG_CTRUNC));
    pass(p[0], SCM_RIGHTS, q, 4, "one");
    if (write(p[0], "more", 4) != 4) DIE("write");
    CHECK("a peek copies", take(p[1], got, 40, MSG_PEEK, &flags, buf) == 1004);
    CHECK("a read stops behind them", take(p[1], got, 40, 0, &flags, buf) == 1004 && strncmp(buf, "onemore", strlen(buf)) == 0);
    if (strcmp(buf, "one") == 0 && read(p[1], buf, 9) != 4) DIE("read");
    pass(p[0], SCM_RIGHTS, q, 4, "lost");
    CHECK("a plain read drops them", read(p[1], buf, 9) == 4);
    struct ucred u = {getpid(), getuid(), getgid()}, v = {0};
    SHOW("credentials", pass(p[0], SCM_CREDENTIALS, &u, sizeof u, "c"));
    CHECK("not asked for", take(p[1], &v, 40, 0, &flags, buf) == 0);
    setsockopt(p[1], SOL_SOCKET, SO_PASSCRED, &(int){1}, 4);
    pass(p[0], SCM_CREDENTIALS, &u, sizeof u, "c");
    CHECK("asked for", take(p[1], &v, 40, 0, &flags, buf) == 2012 && v.pid == getpid() && v.uid == getuid());
    if (write(p[0], "plain", 5) != 5) DIE("write");
    CHECK("and without being sent", take(p[1], &v, 40, 0, &flags, buf) == 2012 && v.pid == getpid());
    socklen_t len = sizeof v;
    CHECK("SO_PEERCRED", getsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &v, &len) == 0 && v.pid == getpid());
    IN_CHILD("without rights", {
        if (setuid(1000)) DIE("setuid");
        u.uid = 0;
        SHOW("others' credentials", pass(p[0], SCM_CREDENTIALS, &u, sizeof u, "c"));
        u.uid = 1000, u.pid = 1;
        SHOW("another's pid", pass(p[0], SCM_CREDENTIALS, &u, sizeof u, "c"));
    });
    char junk[32] = {0};
    struct iovec iov = {buf, 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = junk, .msg_controllen = 32};
    ((size_t *)junk)[0] = 3;
    SHOW("malformed control", sendmsg(p[0], &m, 0));
    m.msg_controllen = 1 << 30;
    SHOW("too much control", sendmsg(p[0], &m, 0));
    m.msg_controllen = 0, m.msg_iovlen = 2000;
    SHOW("too many pieces", sendmsg(p[0], &m, 0));
    SHOW("bad header", sendmsg(p[0], (void *)8, 0));
}

int main(void) {
    making(), names(), streams(), packets(), controls();
    return t_failed;
}
