// Threads that are saved inside of waiting calls, and what ends their waits afterwards.
#include "ckpt.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>

#define THREADS 12
static int pipes[THREADS][2], full[2], pair[2], listener, event;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static volatile int flag;
static char result[THREADS][64];
static volatile pid_t tids[THREADS];

static void *wait_in(void *arg)
{
    long i = (long)arg;
    char buf[16] = {0};
    int fd = pipes[i][0];
    long r = -1;
    tids[i] = gettid();
    switch (i) {
    case 0: r = read(fd, buf, 15); break;
    case 1: { struct pollfd p = {fd, POLLIN, 0}; r = poll(&p, 1, 60000) * 100 + p.revents; break; }
    case 2: { fd_set s; FD_ZERO(&s); FD_SET(fd, &s); r = select(fd + 1, &s, 0, 0, 0) * 10 + FD_ISSET(fd, &s); break; }
    case 3: {
        int e = epoll_create1(0);
        struct epoll_event ev = {EPOLLIN | EPOLLONESHOT, {.u64 = 77}}, got = {0};
        epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev);
        r = epoll_wait(e, &got, 1, -1) * 100 + got.data.u64;
        break;
    }
    case 4:
        pthread_mutex_lock(&mutex);
        while (!flag) pthread_cond_wait(&cond, &mutex);
        pthread_mutex_unlock(&mutex);
        r = flag;
        break;
    case 5: { struct timespec t = {0, 300000000}; r = nanosleep(&t, 0); break; }
    case 6: { static char big[200000]; memset(big, 'w', sizeof big); r = write(full[1], big, sizeof big); break; }
    case 7: r = recv(pair[0], buf, 15, 0); break;
    case 8: { int s = accept(listener, 0, 0); r = s < 0 ? -1 : read(s, buf, 15); break; }
    case 9: { uint64_t v = 0; r = read(event, &v, 8) * 100 + v; break; }
    case 10: {
        sigset_t set; sigemptyset(&set); sigaddset(&set, SIGUSR2);
        siginfo_t info; struct timespec t = {60, 0};
        r = sigtimedwait(&set, &info, &t); r = r == SIGUSR2;
        break;
    }
    case 11: {
        struct timespec t = {0, 200000000};
        int word = 5;
        r = syscall(SYS_futex, &word, 128, 5, &t, 0, 0) == -1 && errno == ETIMEDOUT;
        break;
    }
    }
    snprintf(result[i], sizeof result[i], "%ld %s", r, buf);
    return 0;
}

int main(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, 0);
    for (int i = 0; i < THREADS; i++)
        if (pipe(pipes[i])) DIE("pipe");
    if (pipe(full) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) DIE("pipe");
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un name = {AF_UNIX, "/tmp/listener"};
    unlink(name.sun_path);
    if (bind(listener, (void *)&name, sizeof name) || listen(listener, 4)) DIE("listen");
    event = eventfd(0, 0);
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], 0, wait_in, (void *)i)) DIE("thread");
    for (int i = 0; i < THREADS; i++) {
        while (!tids[i]) usleep(1000);
        // Those with a short time may be over already.
        if (i != 5 && i != 11) until_asleep(getpid(), tids[i]);
    }
    ready();
    for (int i = 0; i < 4; i++)
        if (write(pipes[i][1], "hello", 5) != 5) DIE("write");
    pthread_mutex_lock(&mutex);
    flag = 9;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&mutex);
    char buf[4096];
    for (long left = 200000; left > 0;) {
        ssize_t n = read(full[0], buf, sizeof buf);
        if (n <= 0 || buf[0] != 'w' || buf[n - 1] != 'w') DIE("the full pipe");
        left -= n;
    }
    if (write(pair[1], "pair", 4) != 4) DIE("pair");
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(s, (void *)&name, sizeof name) || write(s, "conn", 4) != 4) DIE("connect");
    uint64_t v = 3;
    if (write(event, &v, 8) != 8) DIE("event");
    kill(getpid(), SIGUSR2);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], 0);
        printf("%d: %s\n", i, result[i]);
    }
    return 0;
}
