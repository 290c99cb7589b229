// build: static
// Calls that move gigabytes, from more processes than there are CPUs: others have their turn, and a kill ends them.
#include "t.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

enum { GB = 1 << 30 };

static void reads(int zero, int null) {
    (void)null;
    char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // The same megabyte again and again, 1 GiB a call.
    struct { void *at; size_t n; } iov[1024];
    for (int i = 0; i < 1024; i++) iov[i].at = p, iov[i].n = 1 << 20;
    for (;;) syscall(SYS_readv, zero, iov, 1024);
}

static void sends(int zero, int null) {
    for (;;) sendfile(null, zero, NULL, 2ul * GB);
}

static void splices(int zero, int null) {
    int p[2];
    if (pipe(p) != 0) DIE("pipe");
    for (;;) {
        splice(zero, NULL, p[1], NULL, 65536, 0);
        splice(p[0], NULL, null, NULL, 65536, 0);
    }
}

static void moves(int zero, int null) {
    (void)zero, (void)null;
    // Two million questions about page 0, a call; in an array the pages of which are one.
    int one = memfd_create("one", 0);
    char *all = mmap(NULL, 16 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ftruncate(one, 4096) != 0) DIE("ftruncate");
    for (long at = 0; at < 16 << 20; at += 4096)
        if (mmap(all + at, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, one, 0) == MAP_FAILED) DIE("mmap");
    int *status = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (;;) syscall(SYS_move_pages, 0, 2 << 20, all, NULL, status, 0);
}

int main(void) {
    int zero = open("/dev/zero", O_RDWR), null = open("/dev/null", O_RDWR);
    sigset_t none;
    sigemptyset(&none);
    int odd[] = {eventfd(0, EFD_NONBLOCK), timerfd_create(CLOCK_MONOTONIC, 0), epoll_create1(0), signalfd(-1, &none, 0)};
    const char *names[] = {"eventfd", "timerfd", "epoll", "signalfd"};
    for (int i = 0; i < 4; i++) {
        int p[2];
        if (pipe2(p, O_NONBLOCK) != 0) DIE("pipe");
        if (write(p[1], "12345678", 8) != 8) DIE("write");
        printf("%s\n", names[i]);
        SHOW("splice from it", splice(odd[i], NULL, p[1], NULL, 8, 0));
        if (i == 0) SHOW("sendfile to it", sendfile(odd[i], zero, NULL, 2ul * GB));
        if (i == 0) SHOW("splice to it", splice(p[0], NULL, odd[i], NULL, 8, 0));
        close(p[0]), close(p[1]);
    }
    void (*bodies[])(int, int) = {reads, sends, splices, reads, moves};
    pid_t kids[5];
    for (int i = 0; i < 5; i++) {
        kids[i] = fork();
        if (kids[i] == 0) bodies[i](zero, null), _exit(1);
    }
    // Every one of these needs a turn.
    for (int i = 0; i < 20; i++) usleep(5000);
    for (int i = 0; i < 5; i++) kill(kids[i], i % 2 ? SIGTERM : SIGKILL);
    for (int i = 0; i < 5; i++) {
        int st = 0;
        waitpid(kids[i], &st, 0);
        printf("%d ended by %d\n", i, WTERMSIG(st));
    }
    char *big = mmap(NULL, 24 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int f = open("/tmp/long", O_RDWR | O_CREAT | O_TRUNC, 0600);
    memset(big, 'x', 24 << 20);
    SHOW("a write in pieces", write(f, big, (24 << 20) - 5));
    SHOW("its place", lseek(f, 0, SEEK_CUR));
    SHOW("a read in pieces", (lseek(f, 3, SEEK_SET), read(f, big, 24 << 20)));
    SHOW("at a place", pread(f, big, 24 << 20, (12 << 20) + 1));
    SHOW("written at a place", pwrite(f, big, 3 << 20, 1 << 20));
    SHOW("up to a hole in memory", (munmap(big + (20 << 20), 4096), pread(f, big + (18 << 20), 4 << 20, 0)));
    int append = open("/tmp/long", O_WRONLY | O_APPEND);
    SHOW("appended", write(append, big, 3 << 20));
    struct stat st;
    CHECK("size", fstat(f, &st) == 0 && st.st_size == (27 << 20) - 5);
    unlink("/tmp/long");
    return t_failed;
}
