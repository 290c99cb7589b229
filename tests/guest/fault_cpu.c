// State that belongs to a thread and must survive calls, switches and signals: segment bases, flags, vector registers,
// protection keys; and ways into a kernel that are not a system call.
#include "t.h"
#include <asm/prctl.h>
#include <cpuid.h>
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <time.h>

static sigjmp_buf back;
static volatile int trapped, steps;

static void on_trap(int sig, siginfo_t *si, void *context) {
    (void)si, (void)context;
    trapped = sig;
    siglongjmp(back, 1);
}

static void on_step(int sig, siginfo_t *si, void *context) {
    (void)sig, (void)si;
    steps++;
    ucontext_t *uc = context;
    // Ends the stepping when it is out of the tested function.
    if (steps >= 64) uc->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
}

static void handle(int sig, void (*f)(int, siginfo_t *, void *)) {
    struct sigaction sa = {.sa_sigaction = f, .sa_flags = SA_SIGINFO};
    sigaction(sig, &sa, 0);
}

// Whether this is refused with a signal.
#define REFUSED(name, ...)                                                       \
    do {                                                                         \
        trapped = 0;                                                             \
        if (sigsetjmp(back, 1) == 0) { __VA_ARGS__; }                            \
        CHECK(name, trapped == SIGSEGV || trapped == SIGILL);                    \
    } while (0)

static unsigned xcr0(void) {
    unsigned a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static void segment_bases(void) {
    unsigned a, b = 0, c, d;
    __cpuid_count(7, 0, a, b, c, d);
    int has = (b & 1) && (getauxval(AT_HWCAP2) & 2);
    unsigned long old, now = 0;
    old = syscall(SYS_arch_prctl, ARCH_GET_GS, &now) == 0 ? now : 1;
    CHECK("gs starts at 0", old == 0);
    static char block[64] = "0123456789";
    CHECK("set gs", syscall(SYS_arch_prctl, ARCH_SET_GS, block) == 0);
    char got;
    __asm__ volatile("movb %%gs:3, %0" : "=q"(got));
    CHECK("gs reads", got == '3');
    for (int i = 0; i < 20; i++) sched_yield();
    __asm__ volatile("movb %%gs:4, %0" : "=q"(got));
    CHECK("gs survives", got == '4');
    TRY("no address for gs", syscall(SYS_arch_prctl, ARCH_SET_GS, 0x8000000000000000ul));
    if (has) {
        __asm__ volatile("wrgsbase %0" ::"r"(block + 1));
        getppid();
        usleep(1000);
        __asm__ volatile("movb %%gs:4, %0" : "=q"(got));
        syscall(SYS_arch_prctl, ARCH_GET_GS, &now);
    }
    CHECK("wrgsbase survives a call", !has || (got == '5' && now == (unsigned long)(block + 1)));
    if (has) __asm__ volatile("rdgsbase %0" : "=r"(now));
    CHECK("rdgsbase", !has || now == (unsigned long)(block + 1));
    REFUSED("wrgsbase of no address", if (!has) __asm__ volatile("ud2");
            __asm__ volatile("wrgsbase %0" ::"r"(0x8000000000000000ul)));
    syscall(SYS_arch_prctl, ARCH_SET_GS, 0);
}

static atomic_int go, bad;

// Keeps values in all vector registers over yields, next to others that do the same.
static void *vectors(void *arg) {
    unsigned long seed = (unsigned long)arg * 0x0101010101010101ul;
    unsigned long want[8], got[8];
    for (int i = 0; i < 8; i++) want[i] = seed + i;
    int wide = __builtin_cpu_supports("avx512f") && (xcr0() & 0xe0) == 0xe0;
    int half = __builtin_cpu_supports("avx") && (xcr0() & 4);
    for (int round = 0; round < 300; round++) {
        memset(got, 0, sizeof got);
        int words = wide ? 8 : half ? 4 : 2;
        if (wide)
            __asm__ volatile("vmovdqu64 %1, %%zmm7\n vmovdqu64 %1, %%zmm29\n kmovw %%ebx, %%k3\n mov $24, %%eax\n syscall\n vmovdqu64 %%zmm29, %0"
                             : "=m"(got) : "m"(want), "b"(round & 0xffff) : "eax", "rcx", "r11", "memory", "xmm7");
        else if (half)
            __asm__ volatile("vmovdqu %1, %%ymm7\n mov $24, %%eax\n syscall\n vmovdqu %%ymm7, %0"
                             : "=m"(got) : "m"(want) : "eax", "rcx", "r11", "memory", "xmm7");
        else
            __asm__ volatile("movdqu %1, %%xmm7\n mov $24, %%eax\n syscall\n movdqu %%xmm7, %0"
                             : "=m"(got) : "m"(want) : "eax", "rcx", "r11", "memory", "xmm7");
        if (memcmp(got, want, words * 8)) atomic_fetch_add(&bad, 1);
        unsigned control = 0x1f80 | ((unsigned)(unsigned long)arg & 3) << 13, after;
        __asm__ volatile("ldmxcsr %1\n mov $24, %%eax\n syscall\n stmxcsr %0"
                         : "=m"(after) : "m"(control) : "eax", "rcx", "r11", "memory");
        if ((after & ~0x3fu) != control) atomic_fetch_add(&bad, 1);
        control = 0x1f80;
        __asm__ volatile("ldmxcsr %0" ::"m"(control));
    }
    return 0;
}

static void *spinner(void *arg) {
    (void)arg;
    atomic_fetch_add(&go, 1);
    while (atomic_load(&go) < 1000) {
    }
    return 0;
}

static volatile sig_atomic_t hits;
static void on_usr1(int sig) {
    (void)sig;
    hits++;
}
static void on_alarm(int sig) {
    (void)sig;
    atomic_store(&go, 1000);
}

int main(void) {
    handle(SIGSEGV, on_trap);
    handle(SIGILL, on_trap);
    segment_bases();

    // The trap flag over a system call: stepping goes on behind it, none is lost or doubled without end.
    handle(SIGTRAP, on_step);
    long pid = getpid(), answer;
    __asm__ volatile("pushfq\n orl $0x100, (%%rsp)\n popfq\n mov $39, %%eax\n syscall\n nop\n nop\n"
                     "pushfq\n andl $~0x100, (%%rsp)\n popfq"
                     : "=a"(answer)::"rcx", "r11", "memory", "cc");
    CHECK("trap flag over a call", answer == pid && steps >= 6 && steps <= 8);

    // rflags of the guest: direction and alignment survive, the privileged ones do nothing.
    unsigned long flags;
    __asm__ volatile("std\n mov $39, %%eax\n syscall\n pushfq\n cld\n pop %0" : "=r"(flags)::"rax", "rcx", "r11", "memory", "cc");
    CHECK("direction survives", flags & 0x400);
    __asm__ volatile("pushfq\n orl $0x3000, (%%rsp)\n popfq\n mov $39, %%eax\n syscall\n pushfq\n pop %0"
                     : "=r"(flags)::"rax", "rcx", "r11", "memory", "cc");
    CHECK("no I/O privilege by popf", !(flags & 0x3000) && (flags & 0x200));
    __asm__ volatile("pushfq\n orl $0x200000, (%%rsp)\n popfq\n mov $39, %%eax\n syscall\n pushfq\n pop %0"
                     : "=r"(flags)::"rax", "rcx", "r11", "memory", "cc");
    CHECK("the cpuid flag survives", flags & 0x200000);
    TRY("iopl", syscall(SYS_iopl, 0) < 0 && errno == ENOSYS ? 0 : 0);
    CHECK("an x32 call", syscall(SYS_getpid | 0x40000000) == -1 || 1);
    SHOW("number -1", syscall(-1));
    SHOW("number 100000", syscall(100000));

    // rcx and r11 are what the instruction leaves, all other registers survive.
    unsigned long r[8] = {0};
    __asm__ volatile("mov $0x11, %%r8\n mov $0x22, %%r9\n mov $0x33, %%r10\n mov $0x44, %%rdx\n mov $0x55, %%rsi\n mov $0x66, %%rdi\n"
                     "mov $39, %%eax\n syscall\n"
                     "mov %%r8, 0(%0)\n mov %%r9, 8(%0)\n mov %%r10, 16(%0)\n mov %%rdx, 24(%0)\n mov %%rsi, 32(%0)\n mov %%rdi, 40(%0)\n"
                     ::"b"(r) : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory");
    CHECK("registers survive", r[0] == 0x11 && r[1] == 0x22 && r[2] == 0x33 && r[3] == 0x44 && r[4] == 0x55 && r[5] == 0x66);

    // The processor says the same inside and out.
    unsigned cpu = 99, node = 99, aux = 0;
    SHOW("getcpu", syscall(SYS_getcpu, &cpu, &node, 0));
    unsigned long tsc = 0;
    __asm__ volatile("rdtscp\n shl $32, %%rdx\n or %%rdx, %%rax" : "=a"(tsc), "=c"(aux)::"rdx");
    CHECK("rdtscp counts", tsc > 0);
    unsigned a, b, c, d;
    __cpuid_count(0xd, 0, a, b, c, d);
    CHECK("xsave area fits what is on", b >= 576 && b <= c && (xcr0() & 3) == 3);

    // Vector registers of more threads than processors.
    pthread_t threads[8];
    for (long i = 0; i < 8; i++) pthread_create(&threads[i], 0, vectors, (void *)(i + 1));
    for (int i = 0; i < 8; i++) pthread_join(threads[i], 0);
    CHECK("vector registers survive", atomic_load(&bad) == 0);

    // Spinning threads on all processors: signals reach them, timers fire, others run.
    signal(SIGUSR1, on_usr1);
    signal(SIGALRM, on_alarm);
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], 0, spinner, 0);
    while (atomic_load(&go) < 8) sched_yield();
    int sent = 0;
    for (int i = 0; i < 40; i++) {
        int before = hits;
        pthread_kill(threads[i % 8], SIGUSR1);
        for (int wait = 0; hits == before && wait < 2000; wait++) usleep(1000);
        sent += hits > before;
    }
    CHECK("signals reach spinning threads", sent == 40);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    alarm(1);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    CHECK("an alarm ends spinning threads", end.tv_sec - start.tv_sec < 20);
    fflush(stdout);
    IN_CHILD("a spinning process dies", alarm(1); signal(SIGALRM, SIG_DFL); for (;;) {});
    END;
}
