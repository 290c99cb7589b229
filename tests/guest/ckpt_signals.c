// Pending signals, handlers, masks, alternate stacks, timers.
#include "ckpt.h"
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

static volatile int usr1, alarms, timers;
static volatile long value;

static void on_usr1(int s, siginfo_t *info, void *u)
{
    (void)s; (void)u;
    usr1++;
    value = value * 10 + info->si_value.sival_int;
}
static void on_alarm(int s) { (void)s; alarms++; }
static void on_timer(int s, siginfo_t *info, void *u)
{
    (void)s; (void)u;
    timers = info->si_value.sival_int;
}

int main(void)
{
    static char stack[65536];
    stack_t alt = {stack, 0, sizeof stack}, seen;
    sigaltstack(&alt, 0);
    struct sigaction a = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGRTMIN + 1, &a, 0);
    struct sigaction b = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &b, 0);
    struct sigaction c = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + 2, &c, 0);
    signal(SIGHUP, SIG_IGN);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, 0);
    for (int i = 1; i <= 3; i++) sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
    kill(getpid(), SIGTERM);
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, SIGTERM);
    int sfd = signalfd(-1, &only, SFD_NONBLOCK);
    struct itimerval it = {{0, 0}, {0, 400000}};
    setitimer(ITIMER_REAL, &it, 0);
    timer_t timer;
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2, .sigev_value = {.sival_int = 55}};
    if (timer_create(CLOCK_MONOTONIC, &ev, &timer)) DIE("timer");
    struct itimerspec ts = {{0, 0}, {0, 300000000}};
    timer_settime(timer, 0, &ts, 0);
    int tfd = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec tick = {{0, 50000000}, {0, 350000000}};
    timerfd_settime(tfd, 0, &tick, 0);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    pid_t child = fork();
    if (child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigsuspend(&none);
        _exit(usr1 == 1 ? 3 : 4);
    }
    until_asleep(child, child);
    ready();
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK("time goes on", after.tv_sec >= before.tv_sec && after.tv_sec - before.tv_sec < 60);
    sigpending(&set);
    printf("pending %d %d %d\n", sigismember(&set, SIGRTMIN + 1), sigismember(&set, SIGTERM), sigismember(&set, SIGHUP));
    sigaltstack(0, &seen);
    printf("altstack %d\n", seen.ss_sp == stack && seen.ss_size == sizeof stack);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_UNBLOCK, &set, &old);
    printf("handled %d, values %ld, term blocked %d\n", usr1, value, sigismember(&old, SIGTERM));
    struct signalfd_siginfo info;
    SHOW("signalfd", read(sfd, &info, sizeof info));
    printf("signo %d\n", info.ssi_signo);
    kill(getpid(), SIGHUP);
    union sigval nine = {.sival_int = 9};
    sigqueue(child, SIGRTMIN + 1, nine);
    int status;
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    while (!alarms || !timers) usleep(10000);
    printf("alarm %d, timer %d\n", alarms, timers);
    uint64_t ticks = 0;
    SHOW("timerfd", read(tfd, &ticks, 8));
    CHECK("ticks", ticks >= 1);
    return 0;
}
