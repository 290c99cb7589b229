// inotify: watches of files and directories, events that wait, a reader that waits. splice, recvmmsg and a
// priority-inheriting lock that wait.
#include "ckpt.h"
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void show(const char *what, int fd)
{
    char buf[4096] __attribute__((aligned(8)));
    ssize_t n = read(fd, buf, sizeof buf);
    printf("%s:", what);
    for (ssize_t at = 0; at < n;) {
        struct inotify_event *e = (void *)(buf + at);
        printf(" %d %x %s%s", e->wd, e->mask, e->len ? e->name : "-", e->cookie ? " paired" : "");
        at += sizeof *e + e->len;
    }
    printf("%s\n", n < 0 ? strerrorname_np(errno) : "");
}

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    if (fd < 0 || write(fd, "x", 1) != 1) DIE("touch");
    close(fd);
}

int main(void)
{
    setvbuf(stdout, 0, _IONBF, 0);
    char dir[] = "/tmp/ckpt_watchesXXXXXX";
    if (!mkdtemp(dir) || chdir(dir) || mkdir("d", 0755)) DIE("mkdtemp");
    touch("file");
    touch("gone");
    int held = open("gone", O_RDONLY);
    int in = inotify_init1(IN_NONBLOCK), wait = inotify_init();
    int wd = inotify_add_watch(in, "d", IN_CREATE | IN_DELETE | IN_MOVE);
    int wf = inotify_add_watch(in, "file", IN_CLOSE_WRITE | IN_ATTRIB);
    int wg = inotify_add_watch(in, "gone", IN_DELETE_SELF);
    int wo = inotify_add_watch(in, "/etc/debian_version", IN_OPEN | IN_ONESHOT);
    int ww = inotify_add_watch(wait, "d", IN_MOVED_TO);
    printf("watches %d %d %d %d %d\n", wd, wf, wg, wo, ww);
    touch("d/early");
    rename("d/early", "d/late");
    show("moves in the other queue", wait);
    unlink("gone");
    int done[2], from[2], to[2], sockets[2];
    if (pipe(done) || pipe(from) || pipe(to) || socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets)) DIE("pipe");
    unsigned *lock = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (lock == MAP_FAILED || syscall(SYS_futex, lock, FUTEX_LOCK_PI, 0, 0)) DIE("lock");
    if (send(sockets[0], "one", 3, 0) != 3) DIE("send");
    pid_t kids[4];
    for (int i = 0; i < 4; i++) {
        kids[i] = fork();
        if (kids[i]) continue;
        char buf[512], a[8] = {0}, b[8] = {0};
        ssize_t n = -1;
        if (i == 0) n = read(wait, buf, sizeof buf) > 0;
        if (i == 1) n = splice(from[0], 0, to[1], 0, 100, 0);
        if (i == 2) {
            struct iovec iov[2] = {{a, 8}, {b, 8}};
            struct mmsghdr m[2] = {{.msg_hdr = {.msg_iov = iov, .msg_iovlen = 1}},
                                   {.msg_hdr = {.msg_iov = iov + 1, .msg_iovlen = 1}}};
            n = recvmmsg(sockets[1], m, 2, 0, 0);
        }
        if (i == 3) {
            n = syscall(SYS_futex, lock, FUTEX_LOCK_PI, 0, 0);
            if ((*lock & FUTEX_TID_MASK) == (unsigned)getpid()) strcpy(a, "mine");
        }
        dprintf(done[1], "%d: %zd %s%s\n", i, n, a, b);
        _exit(0);
    }
    for (int i = 0; i < 4; i++) until_asleep(kids[i], kids[i]);
    ready();
    show("what waited", in);
    show("nothing more", in);
    close(held);
    show("the unlinked file is closed", in);
    touch("file");
    chmod("file", 0600);
    touch("d/new");
    unlink("d/new");
    show("afterwards", in);
    close(open("/etc/debian_version", O_RDONLY));
    close(open("/etc/debian_version", O_RDONLY));
    show("of the image, once", in);
    int more = inotify_add_watch(in, ".", IN_CREATE);
    printf("the next watch %d, the same %d\n", more, inotify_add_watch(in, "file", IN_MODIFY) == wf);
    SHOW("unwatch", inotify_rm_watch(in, wd));
    show("ignored", in);
    for (int i = 0; i < 4; i++) {
        if (i == 0 && rename("file", "d/file")) DIE("rename");
        if (i == 1 && write(from[1], "spliced", 7) != 7) DIE("write");
        if (i == 2 && send(sockets[0], "two", 3, 0) != 3) DIE("send");
        if (i == 3 && syscall(SYS_futex, lock, FUTEX_UNLOCK_PI)) DIE("unlock");
        char line[64];
        ssize_t n = read(done[0], line, sizeof line);
        printf("%.*s", (int)n, line);
        waitpid(kids[i], 0, 0);
    }
    char buf[16] = {0};
    SHOW("behind the splice", read(to[0], buf, 16));
    printf("%s\n", buf);
    return 0;
}
