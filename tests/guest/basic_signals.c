// Handlers, masks, alternate stacks, restarts, recovery from faults, queueing.
#include "t.h"
#include <setjmp.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

static volatile int hits, depth, order[16], n_order;
static volatile uintptr_t handler_sp;
static sigjmp_buf jump;

static void count(int sig) { (void)sig; hits++; }
static void on_stack(int sig) { (void)sig; int x; handler_sp = (uintptr_t)&x; }
static void recover(int sig) { siglongjmp(jump, sig); }
static void record(int sig, siginfo_t *si, void *uc) { (void)uc; order[n_order++] = si->si_value.sival_int * 100 + (sig - SIGRTMIN); }
static void skip(int sig, siginfo_t *si, void *uc) {
    (void)sig; (void)si;
    hits++;
    ((ucontext_t *)uc)->uc_mcontext.gregs[REG_RIP] += 2;
}
static void nested(int sig) {
    (void)sig;
    if (++depth < 5) raise(SIGUSR1);
    order[n_order++] = depth;
}

static void handle(int sig, void (*f)(int), int flags) {
    struct sigaction sa = {.sa_handler = f, .sa_flags = flags};
    sigemptyset(&sa.sa_mask);
    if (sigaction(sig, &sa, NULL)) DIE("sigaction");
}

int main(void) {
    handle(SIGUSR1, count, 0);
    raise(SIGUSR1);
    CHECK("handled", hits == 1);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, &old);
    raise(SIGUSR1);
    raise(SIGUSR1);
    CHECK("blocked", hits == 1);
    sigset_t pending;
    sigpending(&pending);
    CHECK("pending", sigismember(&pending, SIGUSR1) && !sigismember(&pending, SIGUSR2));
    sigprocmask(SIG_SETMASK, &old, NULL);
    CHECK("one delivery of two", hits == 2);

    handle(SIGUSR1, nested, SA_NODEFER);
    raise(SIGUSR1);
    printf("nested depth %d order", depth);
    for (int i = 0; i < n_order; i++) printf(" %d", order[i]);
    puts("");
    n_order = 0;

    char *stack = malloc(64 << 10);
    stack_t ss = {.ss_sp = stack, .ss_size = 64 << 10};
    SHOW("sigaltstack", sigaltstack(&ss, NULL));
    handle(SIGUSR2, on_stack, SA_ONSTACK);
    raise(SIGUSR2);
    CHECK("on the alternate stack", handler_sp > (uintptr_t)stack && handler_sp < (uintptr_t)stack + (64 << 10));
    handle(SIGUSR2, on_stack, 0);
    raise(SIGUSR2);
    CHECK("on the own stack", !(handler_sp > (uintptr_t)stack && handler_sp < (uintptr_t)stack + (64 << 10)));

    handle(SIGSEGV, recover, 0);
    for (volatile int i = 0; i < 3; i++)
        if (sigsetjmp(jump, 1) == 0) *(volatile int *)8 = 1;
        else hits++;
    CHECK("recovered from faults", hits == 5);
    struct sigaction sa = {.sa_sigaction = skip, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &sa, NULL);
    hits = 0;
    for (int i = 0; i < 3; i++) __asm__ volatile("ud2");
    CHECK("skipped bad instructions", hits == 3);

    for (int s = 0; s < 3; s++) {
        struct sigaction ra = {.sa_sigaction = record, .sa_flags = SA_SIGINFO};
        sigfillset(&ra.sa_mask);
        sigaction(SIGRTMIN + s, &ra, NULL);
        sigaddset(&set, SIGRTMIN + s);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 1; i <= 3; i++)
        for (int s = 2; s >= 0; s--) sigqueue(getpid(), SIGRTMIN + s, (union sigval){.sival_int = i});
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    printf("queued in order");
    for (int i = 0; i < n_order; i++) printf(" %03d", order[i]);
    puts("");

    handle(SIGALRM, count, 0);
    hits = 0;
    struct itimerval timer = {.it_value = {0, 20000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    SHOW("pause", pause());
    CHECK("alarm", hits == 1);
    int p[2];
    if (pipe(p)) DIE("pipe");
    char c;
    setitimer(ITIMER_REAL, &timer, NULL);
    SHOW("read interrupted", read(p[0], &c, 1));
    handle(SIGALRM, count, SA_RESTART);
    setitimer(ITIMER_REAL, &timer, NULL);
    fflush(stdout);
    if (fork() == 0) {
        usleep(80000);
        if (write(p[1], "x", 1) != 1) _exit(1);
        _exit(0);
    }
    handle(SIGCHLD, SIG_DFL, 0);
    SHOW("read restarted", read(p[0], &c, 1));
    CHECK("alarms", hits == 3);
    wait(NULL);
    hits = 0;
    setitimer(ITIMER_REAL, &timer, NULL);
    struct timespec want = {0, 60000000}, left = {0, 0};
    SHOW("nanosleep interrupted even so", nanosleep(&want, &left));
    CHECK("time left", left.tv_nsec > 0 && left.tv_nsec < 60000000);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    siginfo_t si;
    struct timespec none = {0, 1000000};
    SHOW("sigtimedwait of nothing", sigtimedwait(&set, &si, &none));
    raise(SIGUSR1);
    // The C library makes SI_TKILL into SI_USER.
    CHECK("sigwaitinfo", sigwaitinfo(&set, &si) == SIGUSR1 && si.si_pid == getpid() && si.si_code == SI_USER);
    kill(getpid(), SIGUSR1);
    CHECK("by kill", sigwaitinfo(&set, &si) == SIGUSR1 && si.si_code == SI_USER && si.si_uid == getuid());
    setitimer(ITIMER_REAL, &timer, NULL);
    sigemptyset(&set);
    SHOW("sigsuspend", sigsuspend(&set) );
    SHOW("handler for SIGKILL", signal(SIGKILL, count) == SIG_ERR ? -1 : 0);
    handle(SIGUSR2, count, SA_RESETHAND);
    hits = 0;
    raise(SIGUSR2);
    CHECK("reset after one", hits >= 1 && signal(SIGUSR2, SIG_DFL) == SIG_DFL);
    END;
}
