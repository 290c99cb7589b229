// Mappings of files and of memory: private, shared, fixed, partial, past the end, inherited.
#include "t.h"
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define P 4096UL
static sigjmp_buf jump;
static volatile int got, got_code;
static void on_fault(int sig, siginfo_t *si, void *uc) {
    (void)uc;
    got = sig;
    got_code = si->si_code;
    siglongjmp(jump, 1);
}
// Which signal touching an address gives; 0 for none.
static int touch(volatile char *p, int write) {
    got = 0;
    if (sigsetjmp(jump, 1) == 0) {
        if (write) *p = *p + 1; else (void)*p;
    }
    return got;
}

int main(void) {
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);

    char *a = mmap(NULL, 64 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK("anonymous", a != MAP_FAILED && a[0] == 0 && a[64 * P - 1] == 0);
    memset(a, 7, 64 * P);
    CHECK("unmap a hole", munmap(a + 16 * P, 4 * P) == 0);
    CHECK("hole faults", touch(a + 17 * P, 0) == SIGSEGV && got_code == SEGV_MAPERR);
    CHECK("beside it lives", a[15 * P] == 7 && a[20 * P] == 7);
    CHECK("read-only", mprotect(a, 4 * P, PROT_READ) == 0 && touch(a, 1) == SIGSEGV && got_code == SEGV_ACCERR && a[0] == 7);
    CHECK("none", mprotect(a, P, PROT_NONE) == 0 && touch(a, 0) == SIGSEGV && got_code == SEGV_ACCERR);
    CHECK("writable again", mprotect(a, 4 * P, PROT_READ | PROT_WRITE) == 0 && touch(a, 1) == 0 && a[0] == 8);
    SHOW("mprotect over the hole", mprotect(a, 64 * P, PROT_READ));
    SHOW("unaligned munmap", munmap(a + 1, P));
    SHOW("munmap of nothing", munmap(a + 16 * P, P));
    SHOW("zero length", mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    SHOW("no kind", mmap(NULL, P, PROT_READ, MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    char *fixed = mmap(a + 16 * P, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK("fixed into the hole", fixed == a + 16 * P && fixed[0] == 0);
    errno = 0;
    void *again = mmap(fixed, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK("no replacing", again == MAP_FAILED && errno == EEXIST);

    int fd = open("/tmp/mapped", O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (int i = 0; i < 3; i++) {
        char page[P];
        memset(page, 'a' + i, P);
        if (write(fd, page, i == 2 ? 100 : P) < 0) DIE("write");
    }
    char *s = mmap(NULL, 4 * P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *p = mmap(NULL, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK("content", s[0] == 'a' && p[P] == 'b' && s[2 * P + 99] == 'c' && s[2 * P + 100] == 0);
    CHECK("past the end", touch(s + 3 * P, 0) == SIGBUS && got_code == BUS_ADRERR);
    s[1] = 'S';
    p[2] = 'P';
    char c[4];
    if (pread(fd, c, 4, 0) != 4) DIE("pread");
    CHECK("shared reaches the file, private does not", c[1] == 'S' && c[2] == 'a');
    CHECK("private page is its own now", p[2] == 'P' && p[1] == 'S');
    if (pwrite(fd, "W", 1, P + 5) != 1) DIE("pwrite");
    CHECK("writes reach both", s[P + 5] == 'W' && p[P + 5] == 'W');
    CHECK("truncate", ftruncate(fd, P) == 0 && touch(s + P, 0) == SIGBUS && touch(p + P, 0) == SIGBUS && s[0] == 'a');
    CHECK("grow", ftruncate(fd, 4 * P) == 0 && s[P] == 0 && s[3 * P] == 0);
    CHECK("msync", msync(s, 4 * P, MS_SYNC) == 0);
    SHOW("msync of nothing", msync((void *)0x1000, P, MS_SYNC));

    char *shared = mmap(NULL, P, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *private = mmap(NULL, P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared[0] = private[0] = 1;
    IN_CHILD("child", { shared[0] = 2; private[0] = 2; s[9] = 'K'; });
    CHECK("shared seen, private not", shared[0] == 2 && private[0] == 1 && s[9] == 'K');

    char *m = mmap(NULL, 8 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 8; i++) m[i * P] = i;
    char *moved = mremap(m, 8 * P, 1024 * P, MREMAP_MAYMOVE);
    int kept = moved != MAP_FAILED;
    for (int i = 0; kept && i < 8; i++) kept = moved[i * P] == i;
    CHECK("mremap grows", kept && moved[1000 * P] == 0);
    CHECK("mremap shrinks", mremap(moved, 1024 * P, P, 0) == moved && touch(moved + P, 0) == SIGSEGV);
    CHECK("madvise", madvise(moved, P, MADV_DONTNEED) == 0 && moved[0] == 0);
    unsigned char *code = mmap(NULL, P, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, "\xb8\x2a\x00\x00\x00\xc3", 6);
    CHECK("made code runs", ((int (*)(void))code)() == 42);
    memcpy(code + 1, "\x2b", 1);
    CHECK("changed code runs", ((int (*)(void))code)() == 43);
    CHECK("brk", sbrk(64 * P) != (void *)-1 && memset((char *)sbrk(0) - 64 * P, 1, 64 * P) && sbrk(-64 * (long)P) != (void *)-1);
    int ro = open("/tmp/mapped", O_RDONLY);
    errno = 0;
    SHOW("shared writable of a read-only descriptor", mmap(NULL, P, PROT_WRITE, MAP_SHARED, ro, 0) == MAP_FAILED ? -1 : 0);
    SHOW("bad descriptor", mmap(NULL, P, PROT_READ, MAP_SHARED, 99, 0) == MAP_FAILED ? -1 : 0);
    END;
}
