// madvise, msync, mincore, mlock, files under mappings, memory policy, sharing across fork.
#include "t.h"
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

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
static int touch(volatile char *p, int write) {
    sig = 0;
    if (sigsetjmp(out, 1) == 0) {
        if (write) *p = 1;
        else (void)*p;
    }
    return sig;
}
static char *anon(long pages) { return mmap(NULL, pages * P, RW, ANON, -1, 0); }

static void advice(void) {
    char *p = anon(8);
    memset(p, 1, 8 * P);
    SHOW("unaligned", madvise(p + 1, P, MADV_NORMAL));
    SHOW("unknown advice", madvise(p, P, 99));
    SHOW("length 0", madvise(p, 0, MADV_DONTNEED));
    SHOW("overflow", madvise(p, -P, MADV_DONTNEED));
    SHOW("a hole", madvise((void *)0x10000000000, P, MADV_DONTNEED));
    static const int HINTS[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTDUMP, MADV_DODUMP, 20, 21};
    for (unsigned i = 0; i < sizeof HINTS / sizeof *HINTS; i++) CHECK("a hint", madvise(p, 2 * P, HINTS[i]) == 0 && p[0] == 1);
    SHOW("dontneed", madvise(p + P, P, MADV_DONTNEED));
    CHECK("dontneed zeroes", p[P] == 0 && p[0] == 1 && p[2 * P] == 1);
    SHOW("remove of private", madvise(p, P, MADV_REMOVE));
    SHOW("populate read", madvise(p, 8 * P, 22));
    SHOW("populate write", madvise(p, 8 * P, 23));
    mprotect(p + 7 * P, P, PROT_READ);
    SHOW("populate write of read-only", madvise(p + 7 * P, P, 23));
    munmap(p + 6 * P, P);
    SHOW("across a hole", madvise(p + 5 * P, 3 * P, MADV_DONTNEED));
    CHECK("done all the same", p[5 * P] == 0 && p[7 * P] == 0);
    SHOW("populate a hole", madvise(p + 6 * P, P, 22));
    SHOW("free", madvise(p, P, MADV_FREE));
    char *s = mmap(NULL, 4 * P, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(s, 1, 4 * P);
    SHOW("free of shared", madvise(s, P, MADV_FREE));
    SHOW("dontneed of shared", madvise(s, P, MADV_DONTNEED));
    CHECK("shared content stays", s[0] == 1);
    SHOW("remove of shared", madvise(s, P, MADV_REMOVE));
    CHECK("remove zeroes", s[0] == 0 && s[P] == 1);
    SHOW("wipeonfork of shared", madvise(s, P, MADV_WIPEONFORK));
    SHOW("wipeonfork", madvise(p, P, MADV_WIPEONFORK));
    SHOW("dontfork", madvise(p + P, P, MADV_DONTFORK));
    p[0] = 5, p[2 * P] = 6;
    IN_CHILD("after fork", {
        CHECK("wiped", p[0] == 0 && p[2 * P] == 6);
        CHECK("left behind", touch(p + P, 0) == SIGSEGV);
    });
    SHOW("keeponfork", madvise(p, P, MADV_KEEPONFORK));
    SHOW("dofork", madvise(p + P, P, MADV_DOFORK));
    IN_CHILD("after fork", CHECK("both there", p[0] == 5 && touch(p + P, 0) == 0));
    mlock(p, P);
    SHOW("dontneed of locked", madvise(p, P, MADV_DONTNEED));
    SHOW("dontneed_locked", madvise(p, P, 24));
}

static void syncs(void) {
    char *p = anon(4);
    SHOW("msync unaligned", msync(p + 1, P, MS_SYNC));
    SHOW("msync both", msync(p, P, MS_SYNC | MS_ASYNC));
    SHOW("msync bad flag", msync(p, P, 64));
    SHOW("msync", msync(p, P, MS_SYNC));
    SHOW("msync async", msync(p, P, MS_ASYNC | MS_INVALIDATE));
    SHOW("msync of a hole", msync((void *)0x10000000000, P, MS_SYNC));
    mlock(p, P);
    SHOW("msync invalidate of locked", msync(p, P, MS_INVALIDATE));
    unsigned char vec[4];
    SHOW("mincore unaligned", mincore(p + 1, P, vec));
    SHOW("mincore of a hole", mincore((void *)0x10000000000, P, vec));
    SHOW("mincore bad vector", mincore(p, P, (void *)8));
    SHOW("mincore too long", mincore(p, -P, vec));
    CHECK("mincore", mincore(p, P, vec) == 0 && (vec[0] & 1));
}

static void locks(void) {
    char *p = anon(16);
    SHOW("mlock", mlock(p + 5, P));
    SHOW("munlock", munlock(p, P));
    SHOW("mlock of a hole", mlock((void *)0x10000000000, P));
    SHOW("mlock2 bad flag", syscall(SYS_mlock2, p, P, 8));
    SHOW("mlock2 on fault", syscall(SYS_mlock2, p, P, 1));
    SHOW("mlockall bad flag", mlockall(64));
    SHOW("mlockall nothing", mlockall(0));
    SHOW("mlockall on fault alone", mlockall(4));
    IN_CHILD("without the right", {
        struct rlimit r = {8 * P, 8 * P};
        setrlimit(RLIMIT_MEMLOCK, &r);
        if (setuid(1000)) DIE("setuid");
        SHOW("below the limit", mlock(p, 4 * P));
        SHOW("over the limit", mlock(p, 16 * P));
        SHOW("map locked over it", (long)mmap(NULL, 64 * P, RW, ANON | MAP_LOCKED, -1, 0));
        SHOW("mlockall over it", mlockall(MCL_CURRENT));
        r.rlim_cur = r.rlim_max = 0;
        setrlimit(RLIMIT_MEMLOCK, &r);
        SHOW("with none", mlock(p, P));
    });
    SHOW("mlockall", mlockall(MCL_CURRENT | MCL_FUTURE));
    SHOW("munlockall", munlockall());
}

static void files(const char *path, int fd) {
    (void)path;
    char buf[16];
    if (ftruncate(fd, 3 * P)) DIE("ftruncate");
    char *s = mmap(NULL, 4 * P, RW, MAP_SHARED, fd, 0), *v = mmap(NULL, 4 * P, RW, MAP_PRIVATE, fd, 0);
    strcpy(s, "mapped");
    CHECK("read sees the mapping", pread(fd, buf, 7, 0) == 7 && strcmp(buf, "mapped") == 0);
    CHECK("private sees it", strcmp(v, "mapped") == 0);
    CHECK("mapping sees write", pwrite(fd, "WRIT", 4, 0) == 4 && strcmp(s, "WRITed") == 0 && strcmp(v, "WRITed") == 0);
    v[0] = 'p';
    CHECK("private copy", s[0] == 'W' && v[0] == 'p' && (s[1] = 'x', v[1] == 'R'));
    CHECK("beyond the end", touch(s + 3 * P, 0) == SIGBUS && code == BUS_ADRERR);
    if (ftruncate(fd, P + 100)) DIE("ftruncate");
    CHECK("truncated away", touch(s + 2 * P, 0) == SIGBUS && touch(v + 2 * P, 1) == SIGBUS && touch(s + P + 200, 1) == 0);
    s[P + 50] = 1, s[P + 150] = 2;
    if (ftruncate(fd, 4 * P)) DIE("ftruncate");
    CHECK("grown again it is zero", s[2 * P] == 0 && s[P + 50] == 1);
    CHECK("write beyond end is lost by truncation", pread(fd, buf, 1, P + 150) == 1 && (buf[0] == 0 || buf[0] == 2));
    s[3 * P] = 9;
    CHECK("written past the old end", pread(fd, buf, 1, 3 * P) == 1 && buf[0] == 9);
    CHECK("read into the mapping of itself", pread(fd, s + P, 100, 0) == 100 && s[P] == s[0]);
    CHECK("write out of the mapping of itself", pwrite(fd, s, 100, 2 * P) == 100 && s[2 * P] == s[0]);
    IN_CHILD("in a child", { s[0] = 'c'; v[0] = 'd'; });
    CHECK("shared with children", s[0] == 'c' && v[0] == 'p');
    SHOW("fallocate punch", fallocate(fd, 3, 0, P));
    CHECK("punched", s[0] == 0 && v[0] == 'p');
    close(fd);
    CHECK("outlives its descriptor", touch(s, 1) == 0);
    SHOW("read into a read-only mapping", (mprotect(s, P, PROT_READ), read(open("/dev/zero", O_RDONLY), s, 10)));
    munmap(s, 4 * P);
}

static void policy(void) {
    int mode = 77;
    unsigned long nodes[16] = {0}, one = 1, none = 0;
    char *p = anon(2);
    SHOW("get_mempolicy", syscall(SYS_get_mempolicy, &mode, nodes, 1025, 0, 0));
    CHECK("default", mode == 0 && nodes[0] == 0);
    SHOW("allowed", syscall(SYS_get_mempolicy, NULL, nodes, 1025, 0, 4));
    CHECK("node 0", nodes[0] & 1);
    SHOW("of an address", syscall(SYS_get_mempolicy, &mode, NULL, 0, p, 2));
    SHOW("of a hole", syscall(SYS_get_mempolicy, &mode, NULL, 0, 0x10000000000, 2));
    SHOW("bad flags", syscall(SYS_get_mempolicy, &mode, NULL, 0, 0, 8));
    SHOW("address without flag", syscall(SYS_get_mempolicy, &mode, NULL, 0, p, 0));
    SHOW("both", syscall(SYS_get_mempolicy, &mode, NULL, 0, p, 6));
    SHOW("set default", syscall(SYS_set_mempolicy, 0, NULL, 0));
    SHOW("set default with nodes", syscall(SYS_set_mempolicy, 0, &one, 2));
    SHOW("set bind", syscall(SYS_set_mempolicy, 2, &one, 2));
    CHECK("is set", syscall(SYS_get_mempolicy, &mode, nodes, 1025, 0, 0) == 0 && mode == 2 && nodes[0] == 1);
    SHOW("set bind to nothing", syscall(SYS_set_mempolicy, 2, &none, 2));
    SHOW("set bad mode", syscall(SYS_set_mempolicy, 99, &one, 2));
    SHOW("set bad pointer", syscall(SYS_set_mempolicy, 2, (void *)8, 2));
    SHOW("set back", syscall(SYS_set_mempolicy, 0, NULL, 0));
    SHOW("mbind", syscall(SYS_mbind, p, 2 * P, 2, &one, 2, 0));
    SHOW("mbind unaligned", syscall(SYS_mbind, p + 1, P, 2, &one, 2, 0));
    SHOW("mbind bad flags", syscall(SYS_mbind, p, P, 2, &one, 2, 64));
    SHOW("mbind of a hole", syscall(SYS_mbind, 0x10000000000, P, 2, &one, 2, 0));
    SHOW("mbind length 0", syscall(SYS_mbind, p, 0, 2, &one, 2, 0));
    p[0] = 1;
    void *pages[2] = {p, p + P};
    int status[2] = {5, 5};
    SHOW("move_pages asks", syscall(SYS_move_pages, 0, 1, pages, NULL, status, 0));
    CHECK("on node 0", status[0] == 0);
    SHOW("move_pages bad flags", syscall(SYS_move_pages, 0, 1, pages, NULL, status, 1));
    SHOW("migrate_pages", syscall(SYS_migrate_pages, 0, 2, &one, &one));
    int fd = syscall(SYS_pidfd_open, getpid(), 0);
    struct iovec iov = {p, P};
    SHOW("process_madvise", syscall(440, fd, &iov, 1, 20, 0));
    SHOW("process_madvise bad flags", syscall(440, fd, &iov, 1, 20, 1));
    SHOW("process_madvise bad advice", syscall(440, fd, &iov, 1, 9999, 0));
    SHOW("process_madvise bad descriptor", syscall(440, 99, &iov, 1, 20, 0));
}

int main(void) {
    struct sigaction sa = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &sa, NULL), sigaction(SIGBUS, &sa, NULL);
    advice(), syncs(), locks();
    files("/tmp/mm_file", open("/tmp/mm_file", O_RDWR | O_CREAT | O_TRUNC, 0600));
    unlink("/tmp/mm_file");
    files("memfd", memfd_create("x", 0));
    policy();
    return t_failed;
}
