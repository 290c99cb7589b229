// Calls through the legacy vsyscall page, which old static binaries make; all else there is a fault.
// Where the host runs with vsyscall=none there is nothing to compare.
#define _GNU_SOURCE
#include "t.h"
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <time.h>

static sigjmp_buf back;
static volatile uintptr_t fault_addr;
static void on_segv(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    fault_addr = (uintptr_t)info->si_addr;
    siglongjmp(back, 1);
}

// Calls `entry`; -1000 where it raised SIGSEGV.
static long call(uintptr_t entry, void *a, void *b) {
    if (sigsetjmp(back, 1)) return -1000;
    return ((long (*)(void *, void *, void *))entry)(a, b, NULL);
}

int main(void) {
    const uintptr_t page = 0xffffffffff600000UL;
    struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);

    struct timeval tv = {0, 0};
    time_t now = 0;
    unsigned cpu = 12345;
    CHECK("gettimeofday", call(page, &tv, NULL) == 0);
    CHECK("its answer", tv.tv_sec > 1600000000 && tv.tv_usec < 1000000);
    CHECK("time", call(page + 0x400, &now, NULL) == now);
    CHECK("its answer", now >= tv.tv_sec && now <= tv.tv_sec + 2);
    CHECK("time without a place", call(page + 0x400, NULL, NULL) >= now);
    CHECK("getcpu", call(page + 0x800, &cpu, NULL) == 0);
    CHECK("its answer", cpu < 4096);

    CHECK("bad argument", call(page + 0x400, (void *)16, NULL) == -1000);
    CHECK("beside the first entry", call(page + 1, NULL, NULL) == -1000);
    CHECK("behind the last entry", call(page + 0xc00, NULL, NULL) == -1000);
    int stored = 0;
    if (!sigsetjmp(back, 1)) {
        *(volatile char *)page = 1;
        stored = 1;
    }
    CHECK("store", !stored);
    CHECK("fault address", fault_addr == page);
    return 0;
}
