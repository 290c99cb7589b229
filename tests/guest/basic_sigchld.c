// SIGCHLD: exits, stops and continuations; ignoring it reaps; SA_NOCLDWAIT, SA_NOCLDSTOP.
#include "t.h"

static volatile int n, codes[16], statuses[16];
static void on_child(int sig, siginfo_t *si, void *uc) {
    (void)sig; (void)uc;
    if (n < 16) { codes[n] = si->si_code; statuses[n] = si->si_status; }
    n++;
}
static const char *code_name(int c) {
    static const char *names[] = {"?", "exited", "killed", "dumped", "trapped", "stopped", "continued"};
    return names[c >= 1 && c <= 6 ? c : 0];
}
static void await(int want) {
    sigset_t none, chld;
    sigemptyset(&none);
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, NULL);
    while (n < want) sigsuspend(&none);
    sigprocmask(SIG_UNBLOCK, &chld, NULL);
}

int main(void) {
    struct sigaction sa = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO};
    sigaction(SIGCHLD, &sa, NULL);
    int st;
    pid_t pid = fork();
    if (pid == 0) for (;;) pause();
    kill(pid, SIGSTOP);
    await(1);
    printf("%s %s\n", code_name(codes[0]), sigabbrev_np(statuses[0]));
    CHECK("WUNTRACED", waitpid(pid, &st, WUNTRACED) == pid);
    t_show_status("stop", st);
    kill(pid, SIGCONT);
    await(2);
    printf("%s %s\n", code_name(codes[1]), sigabbrev_np(statuses[1]));
    CHECK("WCONTINUED", waitpid(pid, &st, WCONTINUED) == pid);
    t_show_status("continue", st);
    kill(pid, SIGTERM);
    await(3);
    printf("%s %s\n", code_name(codes[2]), sigabbrev_np(statuses[2]));
    CHECK("reaped", waitpid(pid, &st, 0) == pid);
    pid = fork();
    if (pid == 0) _exit(9);
    await(4);
    printf("%s %d\n", code_name(codes[3]), statuses[3]);
    CHECK("reaped", waitpid(pid, &st, 0) == pid);

    sa.sa_flags |= SA_NOCLDSTOP;
    sigaction(SIGCHLD, &sa, NULL);
    pid = fork();
    if (pid == 0) { raise(SIGSTOP); _exit(0); }
    CHECK("stopped without a signal", waitpid(pid, &st, WUNTRACED) == pid && WIFSTOPPED(st) && n == 4);
    kill(pid, SIGCONT);
    await(5);
    CHECK("reaped", waitpid(pid, &st, 0) == pid);

    signal(SIGCHLD, SIG_IGN);
    pid = fork();
    if (pid == 0) _exit(1);
    SHOW("ignored children leave nothing", waitpid(pid, &st, 0));
    sa.sa_flags = SA_SIGINFO | SA_NOCLDWAIT;
    sigaction(SIGCHLD, &sa, NULL);
    pid = fork();
    if (pid == 0) _exit(1);
    errno = 0;
    while (waitpid(pid, &st, 0) < 0 && errno == EINTR) {}
    CHECK("SA_NOCLDWAIT", errno == ECHILD);
    END;
}
