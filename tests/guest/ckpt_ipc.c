// System V shared memory, semaphores and messages, POSIX message queues: content, ids, keys, who waits, what is undone.
#include "ckpt.h"
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>

struct text {
    long kind;
    char text[32];
};

static int change(int set, int num, int by, int flags)
{
    struct sembuf op = {num, by, flags};
    return semop(set, &op, 1);
}

int main(void)
{
    setvbuf(stdout, 0, _IONBF, 0);
    key_t key = 0x4e560000 | getpid();
    int shm = shmget(key, 100000, IPC_CREAT | 0600), lost = shmget(IPC_PRIVATE, 4096, 0600);
    char *a = shmat(shm, 0, 0), *b = shmat(shm, 0, SHM_RDONLY), *c = shmat(lost, 0, 0);
    if (shm < 0 || lost < 0 || a == (void *)-1 || b == (void *)-1 || c == (void *)-1) DIE("shm");
    strcpy(a + 70000, "shared text");
    strcpy(c, "no name");
    shmctl(lost, IPC_RMID, 0);
    int set = semget(key, 3, IPC_CREAT | 0640);
    if (set < 0 || change(set, 0, 5, 0) || change(set, 1, 2, SEM_UNDO)) DIE("sem");
    int queue = msgget(key, IPC_CREAT | 0600), quiet = msgget(IPC_PRIVATE, 0600);
    struct text m = {3, "third"}, first = {1, "first"};
    if (queue < 0 || quiet < 0 || msgsnd(queue, &m, 6, 0) || msgsnd(queue, &first, 6, 0)) DIE("msg");
    struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 16};
    char name[32], other[32];
    snprintf(name, sizeof name, "/ckpt%d", getpid());
    snprintf(other, sizeof other, "/ckpt_other%d", getpid());
    mqd_t mq = mq_open(name, O_RDWR | O_CREAT, 0600, &attr), idle = mq_open(other, O_RDWR | O_CREAT, 0600, &attr);
    if (mq < 0 || idle < 0 || mq_send(mq, "low", 4, 1) || mq_send(mq, "high", 5, 9)) DIE("mq");
    mq_unlink(other);
    int done[2];
    if (pipe(done)) DIE("pipe");
    pid_t waiters[4];
    for (int i = 0; i < 4; i++) {
        waiters[i] = fork();
        if (waiters[i]) continue;
        struct text got = {0};
        char buf[16] = {0};
        ssize_t n = -1;
        if (i == 0) n = change(set, 2, -3, SEM_UNDO);
        if (i == 1) n = msgrcv(quiet, &got, sizeof got.text, -5, 0);
        if (i == 2) n = mq_receive(idle, buf, 16, 0);
        if (i == 3) n = mq_send(mq, "pressed in", 11, 5);
        dprintf(done[1], "%d: %zd %s%s\n", i, n, got.text, buf);
        _exit(0);
    }
    for (int i = 0; i < 4; i++) until_asleep(waiters[i], waiters[i]);
    ready();
    char line[128];
    ssize_t n;
    printf("segment %s, %s, %s, same id %d\n", a + 70000, b + 70000, c, shmget(key, 0, 0) == shm);
    strcpy(a + 70000, "changed");
    printf("seen %s\n", b + 70000);
    struct shmid_ds ds;
    SHOW("stat", shmctl(shm, IPC_STAT, &ds));
    printf("size %zu attached %lu mine %d\n", ds.shm_segsz, (unsigned long)ds.shm_nattch, ds.shm_cpid == getpid());
    SHOW("read only", b[0] == 0);
    printf("values %d %d %d, waiting %d, same id %d\n", semctl(set, 0, GETVAL), semctl(set, 1, GETVAL),
           semctl(set, 2, GETVAL), semctl(set, 2, GETNCNT), semget(key, 3, 0) == set);
    SHOW("too much", change(set, 0, -6, IPC_NOWAIT));
    SHOW("post", change(set, 2, 3, 0));
    n = read(done[0], line, sizeof line);
    printf("%.*s", (int)n, line);
    waitpid(waiters[0], 0, 0);
    printf("undone %d\n", semctl(set, 2, GETVAL));
    struct text got = {0};
    SHOW("the first kind", msgrcv(queue, &got, sizeof got.text, 1, IPC_NOWAIT));
    printf("%s\n", got.text);
    struct text answer = {4, "answer"};
    SHOW("send", msgsnd(quiet, &answer, 7, 0));
    n = read(done[0], line, sizeof line);
    printf("%.*s", (int)n, line);
    char buf[16];
    unsigned priority;
    for (int i = 0; i < 2; i++) {
        n = mq_receive(mq, buf, 16, &priority);
        printf("message %zd %s of %u\n", n, buf, priority);
        if (i) continue;
        n = read(done[0], line, sizeof line);
        printf("%.*s", (int)n, line);
    }
    SHOW("another", mq_send(idle, "woken", 6, 0));
    n = read(done[0], line, sizeof line);
    printf("%.*s", (int)n, line);
    mqd_t again = mq_open(name, O_RDONLY | O_NONBLOCK);
    n = mq_receive(again, buf, 16, &priority);
    printf("by its name %zd %s of %u\n", n, buf, priority);
    SHOW("unnamed", mq_open(other, O_RDONLY));
    shmctl(shm, IPC_RMID, 0);
    semctl(set, 0, IPC_RMID);
    msgctl(queue, IPC_RMID, 0);
    msgctl(quiet, IPC_RMID, 0);
    mq_unlink(name);
    for (int i = 1; i < 4; i++) waitpid(waiters[i], 0, 0);
    return 0;
}
