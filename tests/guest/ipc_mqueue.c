// POSIX message queues: order by priority, limits, waiting, polling, notification, names.
#include "t.h"
#include <mqueue.h>
#include <poll.h>
#include <time.h>

static volatile int notified, value;
static void on_message(int sig, siginfo_t *si, void *ctx) {
    (void)sig; (void)ctx;
    notified += si->si_code == SI_MESGQ;
    value = si->si_value.sival_int;
}

int main(void) {
    const char *name = "/t_ipc_mqueue";
    mq_unlink(name);
    SHOW("not there", mq_open(name, O_RDWR));
    SHOW("bad name", mq_open("/a/b", O_RDWR));
    struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 32};
    mqd_t q = mq_open(name, O_RDWR | O_CREAT, 0600, &attr);
    CHECK("made", q >= 0);
    SHOW("exclusive", mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr));
    struct mq_attr got;
    SHOW("getattr", mq_getattr(q, &got));
    CHECK("as wanted", got.mq_maxmsg == 3 && got.mq_msgsize == 32 && got.mq_curmsgs == 0 && got.mq_flags == 0);
    SHOW("low", mq_send(q, "low", 4, 1));
    SHOW("high", mq_send(q, "high", 5, 9));
    SHOW("low again", mq_send(q, "low2", 5, 1));
    char text[64];
    SHOW("too long", mq_send(q, text, 33, 0));
    SHOW("bad priority", mq_send(q, "x", 1, 32768));
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec = (t.tv_nsec + 20000000) % 1000000000;
    SHOW("full", mq_timedsend(q, "x", 1, 0, &t));
    unsigned prio;
    SHOW("small buffer", mq_receive(q, text, 8, &prio));
    for (int i = 0; i < 3; i++) {
        long n = mq_receive(q, text, sizeof text, &prio);
        printf("%ld %u %s\n", n, prio, text);
    }
    SHOW("nothing in time", mq_timedreceive(q, text, sizeof text, &prio, &t));
    struct pollfd p = {q, POLLIN | POLLOUT, 0};
    SHOW("poll", poll(&p, 1, 0));
    CHECK("writable", p.revents == POLLOUT);
    struct mq_attr nb = {.mq_flags = O_NONBLOCK};
    SHOW("setattr", mq_setattr(q, &nb, &got));
    SHOW("would wait", mq_receive(q, text, sizeof text, &prio));
    nb.mq_flags = 0;
    mq_setattr(q, &nb, NULL);

    struct sigaction sa = {.sa_sigaction = on_message, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &sa, NULL);
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 77};
    SHOW("notify", mq_notify(q, &ev));
    SHOW("twice", mq_notify(q, &ev));
    SHOW("send", mq_send(q, "a", 2, 0));
    CHECK("told", notified == 1 && value == 77);
    SHOW("send", mq_send(q, "b", 2, 0));
    CHECK("once", notified == 1);

    pid_t child = fork();
    if (child == 0) {
        mqd_t mine = mq_open(name, O_RDONLY);
        int n = 0;
        while (n < 3 && mq_receive(mine, text, sizeof text, NULL) > 0) n++;
        _exit(n);
    }
    usleep(30000);
    SHOW("to a waiting child", mq_send(q, "c", 2, 0));
    int st;
    waitpid(child, &st, 0);
    t_show_status("received", st);
    mqd_t ro = mq_open(name, O_RDONLY);
    SHOW("read-only", mq_send(ro, "x", 1, 0));
    SHOW("unlink", mq_unlink(name));
    SHOW("unlink again", mq_unlink(name));
    SHOW("still usable", mq_send(q, "x", 2, 0));
    SHOW("not a queue", mq_send(1, "x", 1, 0));
    attr.mq_maxmsg = 0;
    SHOW("bad attributes", mq_open(name, O_RDWR | O_CREAT, 0600, &attr));
    END;
}
