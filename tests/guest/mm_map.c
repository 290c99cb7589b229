// mmap, munmap, mprotect, mremap, brk: flags, edges, errors.
#include "t.h"
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#define P 4096L
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static sigjmp_buf out;
static volatile int sig, code;
static void caught(int s, siginfo_t *i, void *u) {
    (void)u;
    sig = s, code = i->si_code;
    siglongjmp(out, 1);
}
// 0, or the signal that touching the byte earns.
static int touch(volatile char *p, int write) {
    sig = 0;
    if (sigsetjmp(out, 1) == 0) {
        if (write) *p = 1;
        else (void)*p;
    }
    return sig;
}
static char *anon(long pages) { return mmap(NULL, pages * P, RW, ANON, -1, 0); }

static int count_maps(char *from, char *to) {
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    int n = 0;
    unsigned long a, b;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%lx-%lx", &a, &b) == 2 && a < (unsigned long)to && b > (unsigned long)from) n++;
    fclose(f);
    return n;
}

static void maps(void) {
    char *p = anon(8);
    CHECK("fresh memory is zero", p[0] == 0 && p[8 * P - 1] == 0);
    SHOW("length 0", (long)mmap(NULL, 0, RW, ANON, -1, 0));
    SHOW("no type", (long)mmap(NULL, P, RW, MAP_ANONYMOUS, -1, 0));
    SHOW("unaligned fixed", (long)mmap((void *)0x100001, P, RW, ANON | MAP_FIXED, -1, 0));
    SHOW("unaligned offset", (long)syscall(SYS_mmap, 0, P, RW, MAP_PRIVATE, 0, 1));
    SHOW("bad descriptor", (long)mmap(NULL, P, RW, MAP_PRIVATE, 99, 0));
    SHOW("huge length", (long)mmap(NULL, -P, RW, ANON, -1, 0));
    SHOW("longer than the address space", (long)mmap(NULL, 1L << 48, RW, ANON, -1, 0));
    SHOW("fixed past the end", (long)mmap((void *)0x7ffffffff000, 2 * P, RW, ANON | MAP_FIXED, -1, 0));
    SHOW("noreplace on a mapping", (long)mmap(p + P, P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    munmap(p + P, P);
    CHECK("noreplace in a hole", mmap(p + P, P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == p + P);
    CHECK("a hint that is free", (munmap(p + 2 * P, P), mmap(p + 2 * P, P, RW, ANON, -1, 0) == p + 2 * P));
    CHECK("a hint that is taken", mmap(p, P, RW, ANON, -1, 0) != p);
    char *low = mmap(NULL, P, RW, ANON | MAP_32BIT, -1, 0);
    CHECK("32bit", low != MAP_FAILED && (unsigned long)low < 1UL << 31);
    SHOW("validate with an unknown flag", (long)mmap(NULL, P, RW, MAP_SHARED_VALIDATE | 0x80000, open("/dev/zero", O_RDWR), 0));
    SHOW("validate anonymous", (long)mmap(NULL, P, RW, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0) == -1 ? -1 : 0);
    SHOW("growsdown shared", (long)mmap(NULL, P, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0));
    CHECK("noreserve", mmap(NULL, 1L << 36, RW, ANON | MAP_NORESERVE, -1, 0) != MAP_FAILED);
    char *pop = mmap(NULL, 16 * P, RW, ANON | MAP_POPULATE, -1, 0);
    unsigned char vec[16] = {0};
    mincore(pop, 16 * P, vec);
    CHECK("populated", vec[0] & 1 && vec[15] & 1);
    CHECK("fixed replaces", (p[0] = 7, mmap(p, P, RW, ANON | MAP_FIXED, -1, 0) == p && p[0] == 0));
    int fd = open("/proc/self/exe", O_RDONLY);
    SHOW("shared writable of a read-only file", (long)mmap(NULL, P, RW, MAP_SHARED, fd, 0));
    CHECK("private writable of a read-only file", mmap(NULL, P, RW, MAP_PRIVATE, fd, 0) != MAP_FAILED);
    int wo = open("/tmp/wo", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    SHOW("of a write-only file", (long)mmap(NULL, P, PROT_WRITE, MAP_SHARED, wo, 0));
    int dir = open("/tmp", O_RDONLY);
    SHOW("of a directory", (long)mmap(NULL, P, PROT_READ, MAP_PRIVATE, dir, 0));
    int pipes[2];
    if (pipe(pipes)) DIE("pipe");
    SHOW("of a pipe", (long)mmap(NULL, P, PROT_READ, MAP_PRIVATE, pipes[0], 0));
    SHOW("offset overflow", (long)mmap(NULL, P, PROT_READ, MAP_PRIVATE, fd, 0x7ffffffffffff000));
    int path = open("/tmp", O_PATH);
    SHOW("of a path descriptor", (long)mmap(NULL, P, PROT_READ, MAP_PRIVATE, path, 0));
    unlink("/tmp/wo");
}

static void unmaps(void) {
    char *p = anon(8);
    SHOW("munmap unaligned", munmap(p + 1, P));
    SHOW("munmap length 0", munmap(p, 0));
    SHOW("munmap past the end", munmap((void *)0x7ffffffff000, 1L << 46));
    SHOW("munmap of nothing", munmap(p + 1000 * P * 0, 0) == -1 ? munmap((void *)0x10000000000, P) : 1);
    CHECK("the middle goes", munmap(p + 2 * P, P) == 0 && touch(p + 2 * P, 0) == SIGSEGV && code == SEGV_MAPERR);
    CHECK("its neighbours stay", touch(p + P, 1) == 0 && touch(p + 3 * P, 1) == 0);
    CHECK("across holes", munmap(p, 8 * P) == 0 && touch(p + 7 * P, 0) == SIGSEGV);
}

static void protects(void) {
    char *p = anon(8);
    p[0] = p[2 * P] = 1;
    SHOW("mprotect unaligned", mprotect(p + 1, P, PROT_READ));
    SHOW("mprotect bad bits", mprotect(p, P, 0x100));
    SHOW("mprotect length 0", mprotect(p, 0, PROT_READ));
    SHOW("mprotect of nothing", mprotect((void *)0x10000000000, P, PROT_READ));
    SHOW("growsdown of no stack", mprotect(p, P, PROT_READ | PROT_GROWSDOWN));
    SHOW("growsup", mprotect(p, P, PROT_READ | PROT_GROWSUP));
    mprotect(p + 2 * P, P, PROT_READ);
    CHECK("read-only", touch(p + 2 * P, 1) == SIGSEGV && code == SEGV_ACCERR && touch(p + 2 * P, 0) == 0);
    CHECK("split in three", count_maps(p, p + 8 * P) == 3);
    mprotect(p + 2 * P, P, PROT_NONE);
    CHECK("none", touch(p + 2 * P, 0) == SIGSEGV && code == SEGV_ACCERR);
    mprotect(p + 2 * P, P, RW);
    CHECK("content survives", p[2 * P] == 1 && touch(p + 2 * P, 1) == 0);
    CHECK("joined again", count_maps(p, p + 8 * P) == 1);
    CHECK("write implies read", (mprotect(p, P, PROT_WRITE), touch(p, 0)) == 0);
    CHECK("a hole ends it", (munmap(p + 4 * P, P), mprotect(p + 3 * P, 3 * P, PROT_READ) == -1 && errno == ENOMEM));
    CHECK("what came before is changed", touch(p + 3 * P, 1) == SIGSEGV && touch(p + 5 * P, 1) == 0);
    int fd = open("/proc/self/exe", O_RDONLY);
    char *f = mmap(NULL, P, PROT_READ, MAP_SHARED, fd, 0);
    SHOW("write to a shared read-only file", mprotect(f, P, RW));
    unsigned char *x = mmap(NULL, P, RW, ANON, -1, 0);
    x[0] = 0xb8, x[1] = 42, x[5] = 0xc3;
    mprotect(x, P, PROT_EXEC);
    CHECK("execute", ((int (*)(void))x)() == 42);
    mprotect(x, P, PROT_READ);
    sig = 0;
    if (sigsetjmp(out, 1) == 0) ((int (*)(void))x)();
    CHECK("no execute", sig == SIGSEGV && code == SEGV_ACCERR);
    mprotect(x, P, RW | PROT_EXEC);
    x[1] = 43;
    CHECK("code changed", ((int (*)(void))x)() == 43);
}

static void remaps(void) {
    char *p = anon(4), *q;
    strcpy(p, "one"), strcpy(p + 3 * P, "four");
    SHOW("bad flags", (long)mremap(p, 4 * P, 4 * P, 64));
    SHOW("unaligned", (long)mremap(p + 1, P, P, 0));
    SHOW("new size 0", (long)mremap(p, P, 0, 0));
    SHOW("fixed without maymove", (long)syscall(SYS_mremap, p, P, P, MREMAP_FIXED, 0x10000000));
    SHOW("of nothing", (long)mremap((void *)0x10000000000, P, 2 * P, MREMAP_MAYMOVE));
    SHOW("old size 0 of private", (long)mremap(p, 0, P, MREMAP_MAYMOVE));
    char *guard = mmap(p + 4 * P, P, PROT_NONE, ANON | MAP_FIXED, -1, 0);
    CHECK("a neighbour", guard == p + 4 * P);
    SHOW("no room to grow", (long)mremap(p, 4 * P, 6 * P, 0));
    q = mremap(p, 4 * P, 6 * P, MREMAP_MAYMOVE);
    CHECK("moved with content", q != p && strcmp(q, "one") == 0 && strcmp(q + 3 * P, "four") == 0 && q[5 * P] == 0);
    CHECK("the old place is gone", touch(p, 0) == SIGSEGV);
    CHECK("shrinks in place", mremap(q, 6 * P, 2 * P, 0) == q && touch(q + 2 * P, 0) == SIGSEGV && touch(q + P, 0) == 0);
    char *to = anon(4);
    strcpy(to, "old");
    CHECK("fixed replaces", mremap(q, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to && strcmp(to, "one") == 0);
    SHOW("fixed overlap", (long)mremap(to, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, to + P));
    SHOW("fixed unaligned", (long)mremap(to, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, to + 9 * P + 1));
    q = (char *)syscall(SYS_mremap, to, 2 * P, 2 * P, MREMAP_MAYMOVE | 4, 0);
    CHECK("dontunmap leaves an empty place", q != MAP_FAILED && strcmp(q, "one") == 0 && to[0] == 0);
    SHOW("dontunmap of another size", (long)mremap(q, 2 * P, 3 * P, MREMAP_MAYMOVE | 4));
    char *s = mmap(NULL, 2 * P, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    strcpy(s, "shared");
    q = mremap(s, 0, 2 * P, MREMAP_MAYMOVE);
    CHECK("a second view of shared memory", q != MAP_FAILED && q != s && (q[0] = 'S', strcmp(s, "Shared") == 0));
    p = anon(3);
    mprotect(p + P, P, PROT_READ);
    SHOW("across mappings, grown", (long)mremap(p, 3 * P, 4 * P, MREMAP_MAYMOVE));
    SHOW("across mappings, shrunk", (long)mremap(p, 3 * P, P, 0) == (long)p ? 0 : -1);
}

static void heap(void) {
    char *start = sbrk(0);
    CHECK("grows", sbrk(10000) == start && (start[9999] = 1));
    CHECK("shrinks", brk(start + 100) == 0 && sbrk(0) == start + 100);
    CHECK("grown again it is zero", brk(start + 10000) == 0 && start[9999] == 0);
    void *now = sbrk(0);
    CHECK("below the start it stays", (char *)syscall(SYS_brk, 1) == now);
    CHECK("too far it stays", (char *)syscall(SYS_brk, 0x7fffffff0000) == now);
    struct rlimit r = {1 << 20, 1 << 20}, old;
    getrlimit(RLIMIT_DATA, &old);
    r.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_DATA, &r);
    SHOW("over RLIMIT_DATA", brk((char *)now + (64 << 20)));
    SHOW("mmap over RLIMIT_DATA", (long)mmap(NULL, 64 << 20, RW, ANON, -1, 0));
    CHECK("read-only is not data", mmap(NULL, 64 << 20, PROT_READ, ANON, -1, 0) != MAP_FAILED);
    setrlimit(RLIMIT_DATA, &old);
    getrlimit(RLIMIT_AS, &old);
    r.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_AS, &r);
    SHOW("over RLIMIT_AS", (long)mmap(NULL, 64 << 20, RW, ANON, -1, 0));
    setrlimit(RLIMIT_AS, &old);
}

static int deep(int n) {
    volatile char frame[4096];
    frame[0] = (char)n;
    return n == 0 ? 0 : deep(n - 1) + frame[0] * 0;
}

static void stacks(void) {
    CHECK("the stack grows", deep(1000) == 0);
    IN_CHILD("past its limit", { deep(100000); });
    IN_CHILD("past a small limit", {
        struct rlimit r = {256 << 10, 256 << 10};
        setrlimit(RLIMIT_STACK, &r);
        deep(100);
    });
    char *g = mmap(NULL, 1024 * P, PROT_NONE, ANON, -1, 0);
    munmap(g, 1024 * P);
    CHECK("a growing mapping", mmap(g + 1000 * P, 4 * P, RW, ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0) == g + 1000 * P);
    g[999 * P] = 1, g[800 * P] = 2;
    CHECK("grows by as much as is asked", g[999 * P] == 1 && count_maps(g + 800 * P, g + 1004 * P) == 1);
}

static void limits(void) {
    long n = 0;
    char *p = mmap(NULL, 140000 * P, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);
    while (n < 70000 && mprotect(p + 2 * n * P, P, PROT_READ) == 0) n++;
    CHECK("max_map_count", n > 32000 && n < 32800 && errno == ENOMEM);
    SHOW("no more mappings", (long)mmap(p + 1 * P, P, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == -1 ? -1 : 0);
    CHECK("all at once", munmap(p, 140000 * P) == 0);
}

int main(void) {
    struct sigaction sa = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &sa, NULL), sigaction(SIGBUS, &sa, NULL);
    maps(), unmaps(), protects(), remaps(), heap();
    signal(SIGSEGV, SIG_DFL);
    IN_CHILD("stacks", { sigaction(SIGSEGV, &sa, NULL); CHECK("grow", deep(1000) == 0); });
    sigaction(SIGSEGV, &sa, NULL);
    limits();
    signal(SIGSEGV, SIG_DFL);
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    stacks();
    return t_failed;
}
