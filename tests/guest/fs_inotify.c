// inotify: what is told of files and directories, in which order.
// volume: /tmp
#include "t.h"
#include <limits.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static int fd;

static const char *names[] = {"ACCESS", "MODIFY", "ATTRIB", "CLOSE_WRITE", "CLOSE_NOWRITE", "OPEN", "MOVED_FROM", "MOVED_TO", "CREATE", "DELETE", "DELETE_SELF", "MOVE_SELF"};

// Cookies by order of appearance: their distance is the kernel's own business.
static unsigned cookie_number(uint32_t cookie) {
    static uint32_t seen[64];
    static unsigned count;
    for (unsigned i = 0; i < count; i++) if (seen[i] == cookie) return i;
    if (count < 64) seen[count++] = cookie;
    return count - 1;
}

static void drain(const char *what) {
    char buf[8192] __attribute__((aligned(8)));
    printf("%s:", what);
    for (;;) {
        ssize_t n = read(fd, buf, sizeof buf);
        if (n <= 0) {
            if (n < 0 && errno != EAGAIN) printf(" error %s", strerrorname_np(errno));
            break;
        }
        for (char *p = buf; p < buf + n;) {
            struct inotify_event *e = (void *)p;
            printf(" [%d", e->wd);
            for (int i = 0; i < 12; i++) if (e->mask & 1u << i) printf(" %s", names[i]);
            if (e->mask & IN_ISDIR) printf(" ISDIR");
            if (e->mask & IN_IGNORED) printf(" IGNORED");
            if (e->mask & IN_Q_OVERFLOW) printf(" OVERFLOW");
            if (e->mask & IN_UNMOUNT) printf(" UNMOUNT");
            if (e->len) printf(" %s/%u", e->name, e->len);
            if (e->cookie) printf(" +%u", cookie_number(e->cookie));
            printf("]");
            p += sizeof *e + e->len;
        }
    }
    printf("\n");
    fflush(stdout);
}

static void put(const char *path, const char *text) {
    int f = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (write(f, text, strlen(text)) < 0) DIE("write");
    close(f);
}

int main(void) {
    char dir[] = "/tmp/inotifyXXXXXX";
    if (!mkdtemp(dir) || chdir(dir)) DIE("mkdtemp");
    fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) DIE("inotify_init1");
    SHOW("bad flags", inotify_init1(1));
    int wd = inotify_add_watch(fd, ".", IN_ALL_EVENTS);
    printf("first wd %d\n", wd);
    drain("nothing");
    put("a", "hello");
    drain("create and write");
    int f = open("a", O_RDWR);
    char c[10];
    SHOW("read", read(f, c, 5));
    SHOW("read at the end", read(f, c, 5));
    SHOW("pwrite", pwrite(f, "x", 1, 2));
    SHOW("ftruncate", ftruncate(f, 1));
    SHOW("fchmod", fchmod(f, 0600));
    close(f);
    drain("open file");
    struct timespec both[2] = {{1, 0}, {2, 0}}, one[2] = {{1, 0}, {0, UTIME_OMIT}}, two[2] = {{0, UTIME_OMIT}, {3, 0}};
    utimensat(AT_FDCWD, "a", both, 0), utimensat(AT_FDCWD, "a", one, 0), utimensat(AT_FDCWD, "a", two, 0);
    drain("times");
    SHOW("truncate", truncate("a", 0));
    f = open("a", O_WRONLY | O_TRUNC), close(f);
    drain("truncated");
    SHOW("link", link("a", "b"));
    drain("link");
    SHOW("symlink", symlink("a", "s"));
    SHOW("mkdir", mkdir("d", 0755));
    SHOW("mkfifo", mkfifo("p", 0600));
    drain("made");
    SHOW("rename", rename("a", "c"));
    drain("rename");
    SHOW("rename over", rename("c", "s"));
    drain("rename over");
    SHOW("rename away and back", rename("b", "d/b") || rename("d/b", "b"));
    drain("away");
    SHOW("rename dir", rename("d", "e"));
    SHOW("rmdir", rmdir("e"));
    drain("directory");
    SHOW("unlink", unlink("p"));
    drain("unlink");

    int wf = inotify_add_watch(fd, "b", IN_ALL_EVENTS);
    printf("second wd %d\n", wf);
    put("b", "1");
    drain("both watch");
    chmod("b", 0640);
    drain("both attrib");
    rename("b", "bb");
    drain("both rename");
    f = open("bb", O_RDONLY);
    drain("opened");
    unlink("bb");
    drain("unlinked while open and linked elsewhere");
    close(f);
    drain("closed");
    unlink("s");
    drain("last name");

    put("k", "");
    drain("k");
    int wk = inotify_add_watch(fd, "k", IN_DELETE_SELF | IN_ATTRIB | IN_CLOSE);
    f = open("k", O_RDONLY);
    unlink("k");
    drain("k unlinked while open");
    close(f);
    drain("k closed");
    SHOW("watch is gone", inotify_rm_watch(fd, wk));
    put("k", "");
    wk = inotify_add_watch(fd, "k", IN_DELETE_SELF);
    drain("again");
    rename("k", "l");
    put("m", "");
    rename("m", "l");
    drain("replaced");

    SHOW("mask 0", inotify_add_watch(fd, ".", 0));
    SHOW("missing", inotify_add_watch(fd, "nope", IN_OPEN));
    SHOW("onlydir", inotify_add_watch(fd, "l", IN_OPEN | IN_ONLYDIR));
    SHOW("bad fd", inotify_add_watch(99, ".", IN_OPEN));
    SHOW("not inotify", inotify_add_watch(0, ".", IN_OPEN) == -1 ? errno : 0);
    SHOW("same again", inotify_add_watch(fd, ".", IN_CREATE) - wd);
    SHOW("mask create", inotify_add_watch(fd, ".", IN_CREATE | IN_MASK_CREATE));
    SHOW("mask add", inotify_add_watch(fd, ".", IN_DELETE | IN_MASK_ADD) - wd);
    put("x", "1"), unlink("x");
    drain("create and delete only");
    SHOW("oneshot", inotify_add_watch(fd, ".", IN_CREATE | IN_ONESHOT) - wd);
    put("y", "1"), unlink("y"), put("y", "1");
    drain("once");
    wd = inotify_add_watch(fd, ".", IN_CREATE);
    put("z1", ""), put("z2", "");
    int bytes = -1;
    SHOW("FIONREAD", ioctl(fd, FIONREAD, &bytes));
    printf("bytes %d\n", bytes);
    char small[20];
    SHOW("too small", read(fd, small, 20));
    char thirty[40];
    SHOW("one only", read(fd, thirty, 40));
    struct pollfd p = {.fd = fd, .events = POLLIN};
    SHOW("poll", poll(&p, 1, 0));
    drain("rest");
    SHOW("poll", poll(&p, 1, 0));
    SHOW("rm", inotify_rm_watch(fd, wd));
    drain("ignored");
    SHOW("rm again", inotify_rm_watch(fd, wd));
    // A blocking reader wakes.
    int fb = inotify_init();
    inotify_add_watch(fb, ".", IN_CREATE);
    pid_t child = fork();
    if (!child) {
        usleep(50000);
        put("wake", "");
        _exit(0);
    }
    char ev[64] __attribute__((aligned(8)));
    SHOW("blocking read", read(fb, ev, sizeof ev));
    waitpid(child, 0, 0);
    // Name of the longest kind.
    char name[256];
    memset(name, 'n', 255);
    name[255] = 0;
    put(name, "");
    char ev2[600] __attribute__((aligned(8)));
    SHOW("long name", read(fb, ev2, sizeof ev2));
    // readdir.
    inotify_add_watch(fd, ".", IN_ALL_EVENTS);
    if (system("ls >/dev/null") && 0) puts("");
    drain("ls");
    if (system("rm -rf /tmp/inotify??????")) DIE("rm");
    END;
}
