// memory: 96M
// limit: 240
// chaos: no
// init: sh
// alone: yes
// Kernel objects of every kind without bound: each child takes until it is refused or killed, and the kernel goes on.
// Natively under the process's own limits and a count, since there it is the host that would hurt.
#include "t.h"
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>

static int inside;
static long bound = 1000000; // natively 500
static char block[1 << 16];

static void pipes(void) {
    for (long i = 0; i < bound; i++) {
        int p[2];
        if (pipe2(p, O_NONBLOCK) < 0) return;
        fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
        while (write(p[1], block, sizeof block) > 0) {}
    }
}

static void sockets(void) {
    for (long i = 0; i < bound; i++) {
        int p[2];
        if (socketpair(AF_UNIX, i % 2 ? SOCK_STREAM : SOCK_DGRAM, 0, p) < 0) return;
        while (send(p[0], block, i % 2 ? sizeof block : 1, MSG_DONTWAIT) > 0) {}
    }
}

static void epolls(void) {
    int e[2] = {eventfd(0, 0), eventfd(0, 0)};
    for (long i = 0; i < bound; i++) {
        int ep = epoll_create1(0);
        if (ep < 0) return;
        struct epoll_event ev = {.events = EPOLLIN};
        epoll_ctl(ep, EPOLL_CTL_ADD, e[0], &ev), epoll_ctl(ep, EPOLL_CTL_ADD, e[1], &ev);
    }
}

static void descriptors(void) {
    for (long i = 0; i < bound; i++)
        if (timerfd_create(CLOCK_MONOTONIC, 0) < 0 || inotify_init1(0) < 0 || memfd_create("x", 0) < 0) return;
}

static void high_descriptors(void) {
    struct rlimit r;
    getrlimit(RLIMIT_NOFILE, &r);
    for (int i = 0; i < 200 && i < bound; i++)
        if (fork() == 0) {
            dup2(1, r.rlim_cur - 1);
            sleep(1);
            _exit(0);
        }
    while (wait(NULL) > 0) {}
}

static void mappings(void) {
    for (long i = 0; i < bound * 2; i++)
        if (mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) break;
    if (inside) fork(), fork();
}

static void shared_mappings(void) {
    int fd = memfd_create("m", 0);
    if (ftruncate(fd, 1 << 20) < 0) _exit(1);
    for (long i = 0; i < bound; i++)
        if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, i % 200 * 4096) == MAP_FAILED) break;
}

static void timers(void) {
    timer_t t;
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    struct itimerspec soon = {{0, 1000000}, {0, 1000000}};
    for (long i = 0; i < bound; i++) {
        if (timer_create(CLOCK_MONOTONIC, &none, &t) < 0) return;
        timer_settime(t, 0, &soon, NULL);
    }
}

static void signals(void) {
    sigset_t all;
    sigfillset(&all), sigprocmask(SIG_BLOCK, &all, NULL);
    for (long i = 0; i < bound; i++)
        if (sigqueue(getpid(), SIGRTMIN + (int)(i % 20), (union sigval){.sival_int = 1}) < 0) return;
}

static int sleeper(void *arg) {
    (void)arg;
    pause();
    return 0;
}

static void threads(void) {
    for (long i = 0; i < bound && i < 100000; i++) {
        char *stack = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
        if (stack == MAP_FAILED || clone(sleeper, stack + 8192, flags, NULL) < 0) return;
    }
}

static void children(void) {
    for (long i = 0; i < bound && i < 100000; i++) {
        pid_t p = fork();
        if (p < 0) return;
        if (p == 0) pause();
    }
}

static void bomb(void) {
    if (!inside) return;
    for (int i = 0; i < 2000; i++) fork();
    _exit(0);
}

static void zombies(void) {
    for (long i = 0; i < bound && i < 100000; i++) {
        pid_t p = fork();
        if (p < 0) return;
        if (p == 0) _exit(0);
    }
}

static void names(void) {
    char path[300];
    mkdir("/tmp/names", 0700);
    for (long i = 0; i < bound; i++) {
        snprintf(path, sizeof path, "/tmp/names/%0200ld", i);
        if (i % 4 == 0 ? mkdir(path, 0700) : i % 4 == 1 ? mkfifo(path, 0600) : i % 4 == 2 ? symlink(path, path) : mknod(path, S_IFREG | 0600, 0)) break;
    }
}

static void lookups(void) {
    char path[300];
    struct stat st;
    for (long i = 0; i < bound && i < 300000; i++) {
        snprintf(path, sizeof path, "/tmp/%0200ld", i);
        stat(path, &st);
    }
}

static void attributes(void) {
    char name[80];
    int fd = open("/tmp/attr", O_RDWR | O_CREAT, 0600);
    for (long i = 0; i < bound && i < 5000; i++) {
        snprintf(name, sizeof name, "user.%ld", i);
        if (fsetxattr(fd, name, block, 60000, 0) < 0) break;
    }
    unlink("/tmp/attr");
}

static void small_files(void) {
    char path[300];
    mkdir("/tmp/small", 0700);
    for (long i = 0; i < bound; i++) {
        snprintf(path, sizeof path, "/tmp/small/%ld", i);
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        if (fd < 0 || write(fd, "x", 1) < 0) break;
        close(fd);
    }
}

static void locks(void) {
    int fd = open("/tmp/locks", O_RDWR | O_CREAT, 0600);
    for (long i = 0; i < bound && i < 200000; i++) {
        struct flock l = {.l_type = F_WRLCK, .l_start = i * 2, .l_len = 1};
        if (fcntl(fd, F_SETLK, &l) < 0) break;
    }
    unlink("/tmp/locks");
}

static void watches(void) {
    int fd = inotify_init1(0);
    char path[100];
    for (long i = 0; i < bound && i < 20000; i++) {
        snprintf(path, sizeof path, "/proc/%ld", i % 30 + 1);
        if (inotify_add_watch(fd, i % 2 ? "/tmp" : path, IN_ALL_EVENTS) < 0 && errno != ENOENT) return;
    }
    for (long i = 0; i < bound && i < 100000; i++) mkdir("/tmp/w", 0700), rmdir("/tmp/w");
}

static int send_fd(int over, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return sendmsg(over, &m, MSG_DONTWAIT);
}

// Sockets in flight inside sockets in flight: closing the last must not go as deep as the guest likes.
static void chain(void) {
    int last[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, last) < 0) return;
    for (long i = 0; i < bound && i < 200000; i++) {
        int next[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, next) < 0 || send_fd(next[0], last[1]) < 0) break;
        close(last[0]), close(last[1]);
        last[0] = next[0], last[1] = next[1];
    }
    close(last[0]), close(last[1]);
}

// Sockets that hold themselves are found and closed.
static void cycles(void) {
    for (long i = 0; i < bound && i < 100000; i++) {
        int p[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, p) < 0) return;
        send_fd(p[0], p[1]), send_fd(p[1], p[0]);
        send(p[0], block, 4096, MSG_DONTWAIT);
        close(p[0]), close(p[1]);
    }
}

static void nested_epolls(void) {
    int last = eventfd(0, 0), first = last;
    struct epoll_event ev = {.events = EPOLLIN};
    for (long i = 0; i < bound && i < 100000; i++) {
        int ep = epoll_create1(0);
        if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, last, &ev) < 0) break;
        last = ep;
    }
    uint64_t one = 1;
    if (write(first, &one, 8) != 8) return;
    epoll_wait(last, &ev, 1, 0);
    // In a ring, and each in each.
    int e[40];
    for (int i = 0; i < 40; i++) e[i] = epoll_create1(0);
    for (int i = 0; i < 40; i++)
        for (int j = 0; j < 40; j++) epoll_ctl(e[i], EPOLL_CTL_ADD, e[j], &ev);
    epoll_ctl(e[0], EPOLL_CTL_ADD, first, &ev);
    if (write(first, &one, 8) != 8) return;
    for (int i = 0; i < 40; i++) epoll_wait(e[i], &ev, 1, 0);
}

static void deep_tree(void) {
    if (mkdir("/tmp/deep", 0700) || mount("none", "/tmp/deep", "tmpfs", 0, NULL) || chdir("/tmp/deep")) return;
    for (long i = 0; i < bound && i < 60000; i++)
        if (mkdir("d", 0700) || chdir("d")) break;
    char cwd[4096];
    CHECK("a path too long for getcwd", getcwd(cwd, sizeof cwd) == NULL || !inside);
    if (chdir("/")) return;
    umount2("/tmp/deep", MNT_DETACH), rmdir("/tmp/deep");
}

static void many_mounts(void) {
    if (!inside) return;
    mkdir("/tmp/m", 0700);
    for (long i = 0; i < 100000; i++)
        if (mount("none", "/tmp/m", "tmpfs", 0, NULL)) break;
}

static void keepers(void) {
    // Memory that no mapping shows: memfds passed around and closed.
    int p[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, p) < 0) return;
    for (long i = 0; i < bound; i++) {
        int fd = memfd_create("k", 0);
        if (fd < 0) return;
        while (write(fd, block, sizeof block) > 0 && inside && lseek(fd, 0, SEEK_CUR) < 4 << 20) {}
        if (send_fd(p[0], fd) < 0) return;
        close(fd);
    }
}

static void arguments(void) {
    static char *argv[70000];
    for (int i = 0; i < 60000; i++) argv[i] = "0123456789012345678901234567890123456789";
    execv("/proc/self/exe", argv);
    printf("too many arguments -> %s\n", strerrorname_np(errno));
    fflush(stdout);
}

// Of many that are alike the killer may take any: this program itself has to outlive them.
static void score(const char *adj) {
    int f = open("/proc/self/oom_score_adj", O_WRONLY);
    if (write(f, adj, strlen(adj)) < 0 && inside) printf("oom_score_adj: %m\n");
    close(f);
}

static void run(const char *name, void (*what)(void)) {
    fflush(stdout);
    pid_t p = fork();
    if (p == 0) {
        setpgid(0, 0);
        score("0");
        if (!inside) {
            struct rlimit files = {1000, 1000};
            setrlimit(RLIMIT_NOFILE, &files);
        }
        what();
        _exit(0);
    }
    int st = -1;
    struct timespec start, t;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        if (waitpid(p, &st, WNOHANG) == p) break;
        clock_gettime(CLOCK_MONOTONIC, &t);
        // Where each call takes long (a software KVM) some do not get to their end.
        if (t.tv_sec > start.tv_sec + 4) kill(p, SIGKILL);
        usleep(5000);
    }
    clock_gettime(CLOCK_MONOTONIC, &t);
    kill(-p, SIGKILL);
    while (waitpid(-1, NULL, WNOHANG) > 0) {}
    if (getenv("HOSTILE_LOUD")) fprintf(stderr, "%s: status %x after %.1f s\n", name, st, t.tv_sec - start.tv_sec + (t.tv_nsec - start.tv_nsec) / 1e9);
    // A new process can still be had.
    p = fork();
    if (p == 0) _exit(5);
    CHECK(name, waitpid(p, &st, 0) == p && WEXITSTATUS(st) == 5);
}

static void clean(void) {
    if (system("rm -rf /tmp/names /tmp/small /tmp/m /tmp/deep 2>/dev/null")) {}
}

int main(int argc, char **argv) {
    if (argc > 10) return 0; // what `arguments` executes, where it may
    char version[64] = {0};
    int f = open("/proc/version", O_RDONLY);
    if (read(f, version, 60) < 0) DIE("version");
    close(f);
    inside = strstr(version, "nanovisor") != NULL;
    if (!inside) bound = 500;
    score("-500");
    static const struct { const char *name; void (*what)(void); } ALL[] = {
        {"pipes", pipes}, {"sockets", sockets}, {"epolls", epolls}, {"descriptors", descriptors},
        {"high descriptors", high_descriptors}, {"mappings", mappings}, {"shared mappings", shared_mappings},
        {"timers", timers}, {"signals", signals}, {"threads", threads}, {"children", children}, {"zombies", zombies},
        {"bomb", bomb}, {"names", names}, {"small files", small_files}, {"lookups", lookups}, {"attributes", attributes},
        {"locks", locks}, {"watches", watches}, {"chain", chain}, {"cycles", cycles}, {"nested epolls", nested_epolls},
        {"deep tree", deep_tree}, {"mounts", many_mounts}, {"keepers", keepers}, {"arguments", arguments},
    };
    for (unsigned i = 0; i < sizeof ALL / sizeof *ALL; i++)
        if (argc < 2 || strcmp(argv[1], ALL[i].name) == 0) {
            run(ALL[i].name, ALL[i].what);
            clean();
        }
    return t_failed;
}
