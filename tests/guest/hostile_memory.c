// memory: 64M
// limit: 60
// chaos: no
// init: sh
// Who takes memory without bound is killed, alone; the others and the kernel go on. Natively the bound is a process's
// own limit, so what is printed is only what holds for both.
#include "t.h"
#include <sys/mman.h>
#include <sys/resource.h>

static int inside;

// Natively nothing may really grow: the child is killed as the sandbox's kernel would do.
static void native_end(void) {
    if (!inside) raise(SIGKILL);
}

static void eat_private(void) {
    native_end();
    for (;;) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) _exit(1);
        memset(p, 1, 1 << 20);
    }
}

static void eat_shared(void) {
    native_end();
    for (;;) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) _exit(1);
        memset(p, 1, 1 << 20);
    }
}

static void eat_by_read(void) {
    native_end();
    int fd = open("/dev/zero", O_RDONLY);
    char *p = mmap(NULL, 1 << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (long at = 0; at < 1 << 30; at += 1 << 16)
        if (read(fd, p + at, 1 << 16) != 1 << 16) at -= 1 << 16;
    _exit(1);
}

static void eat_heap(void) {
    native_end();
    for (char *p; (p = sbrk(1 << 16)) != (void *)-1;) memset(p, 1, 1 << 16);
    _exit(1);
}

static void eat_by_populate(void) {
    native_end();
    mmap(NULL, 1 << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    mmap(NULL, 1 << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    _exit(1);
}

static void eat_copies(void) {
    native_end();
    long size = 20 << 20;
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, size);
    pid_t kids[8];
    for (int i = 0; i < 8; i++)
        if ((kids[i] = fork()) == 0) {
            memset(p, 2, size);
            pause();
        }
    int st = 0, killed = 0;
    while (!killed && wait(&st) > 0) killed = WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL;
    for (int i = 0; i < 8; i++)
        if (kids[i] > 0) kill(kids[i], SIGKILL);
    while (wait(&st) > 0) {}
    raise(SIGKILL);
}

// Files in memory end in ENOSPC, and leave room to run in.
static int fill_files(void) {
    if (!inside) return 1;
    int fd = open("/tmp/big", O_RDWR | O_CREAT | O_TRUNC, 0600), full = 0;
    static char block[1 << 16];
    for (int i = 0; i < 4096 && !full; i++)
        if (write(fd, block, sizeof block) < 0) full = errno == ENOSPC;
    int kept = fork();
    if (kept == 0) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(p, 1, 1 << 20);
        _exit(7);
    }
    int st;
    waitpid(kept, &st, 0);
    close(fd), unlink("/tmp/big");
    return full && WIFEXITED(st) && WEXITSTATUS(st) == 7;
}

static long free_kib(void) {
    char text[4096] = {0};
    int fd = open("/proc/meminfo", O_RDONLY);
    if (read(fd, text, sizeof text - 1) < 0) DIE("meminfo");
    close(fd);
    return atol(strstr(text, "MemFree:") + 8);
}

int main(void) {
    char version[64] = {0};
    int f = open("/proc/version", O_RDONLY);
    if (read(f, version, 60) < 0) DIE("version");
    close(f);
    inside = strstr(version, "nanovisor") != NULL;
    long before = free_kib();
    IN_CHILD("private memory", eat_private());
    IN_CHILD("shared memory", eat_shared());
    IN_CHILD("memory by read", eat_by_read());
    IN_CHILD("heap", eat_heap());
    IN_CHILD("populate", eat_by_populate());
    IN_CHILD("copies after fork", eat_copies());
    CHECK("files in memory", fill_files());
    CHECK("memory came back", !inside || free_kib() > before - 4096);
    // The chosen one is who has the higher score, not who asks.
    fflush(stdout);
    int p[2];
    if (pipe(p) < 0) DIE("pipe");
    pid_t big = fork();
    if (big == 0) {
        f = open("/proc/self/oom_score_adj", O_WRONLY);
        if (write(f, "1000", 4) != 4) _exit(3);
        char *m = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(m, 1, 8 << 20);
        if (write(p[1], "x", 1) != 1) _exit(4);
        native_end();
        pause();
    }
    char c;
    if (read(p[0], &c, 1) != 1) DIE("read");
    if (inside) {
        char *m = mmap(NULL, 256 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int st;
        for (long at = 0; at < 256 << 20 && waitpid(big, &st, WNOHANG) == 0; at += 1 << 16) memset(m + at, 1, 1 << 16);
        t_show_status("the adjusted one", st);
    } else {
        int st;
        waitpid(big, &st, 0);
        t_show_status("the adjusted one", st);
    }
    return t_failed;
}
