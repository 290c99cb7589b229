// status: 42
// Exit statuses and signals as wait sees them.
#include "t.h"

int main(void) {
    static const int codes[] = {0, 1, 2, 42, 127, 128, 255, 256, 257, -1};
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++) {
        char name[32];
        snprintf(name, sizeof name, "exit %d", codes[i]);
        IN_CHILD(name, _exit(codes[i]));
    }
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGUSR1, SIGSEGV,
        SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSYS};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) {
        char name[32];
        snprintf(name, sizeof name, "kill self %s", sigabbrev_np(signals[i]));
        IN_CHILD(name, { kill(getpid(), signals[i]); _exit(1); });
    }
    static const int ignored[] = {SIGCHLD, SIGURG, SIGWINCH, SIGCONT};
    for (unsigned i = 0; i < sizeof ignored / sizeof *ignored; i++) {
        char name[32];
        snprintf(name, sizeof name, "ignored %s", sigabbrev_np(ignored[i]));
        IN_CHILD(name, { kill(getpid(), ignored[i]); _exit(7); });
    }
    IN_CHILD("real time", { kill(getpid(), SIGRTMIN + 3); _exit(1); });
    IN_CHILD("abort", abort());
    IN_CHILD("null write", *(volatile int *)0 = 1);
    IN_CHILD("ud2", __asm__ volatile("ud2"));
    IN_CHILD("int3", __asm__ volatile("int3"));
    IN_CHILD("divide", { volatile int a = 1; volatile int b = 0; a = a / b; });
    IN_CHILD("hlt", __asm__ volatile("hlt"));
    IN_CHILD("non-canonical", *(volatile int *)0x8000000000000000UL = 1);
    IN_CHILD("jump to nothing", ((void (*)(void))0x10)());
    fflush(stdout);
    return 42;
}
