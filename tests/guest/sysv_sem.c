// System V semaphores: values, atomic groups, waiting, undo, timeouts, removal.
#include "t.h"
#include <sys/ipc.h>
#include <sys/sem.h>
#include <time.h>

union semun { int val; struct semid_ds *buf; unsigned short *array; };

static int op(int id, int num, int by, int flags) {
    struct sembuf b = {num, by, flags};
    return semop(id, &b, 1);
}

static int value(int id, int num) { return semctl(id, num, GETVAL); }

static void nothing(int sig) { (void)sig; }

int main(void) {
    int id = semget(IPC_PRIVATE, 3, IPC_CREAT | 0600);
    CHECK("made", id >= 0);
    CHECK("zeros", value(id, 0) == 0 && value(id, 2) == 0);
    SHOW("up", op(id, 0, 2, 0));
    SHOW("value", value(id, 0));
    SHOW("down", op(id, 0, -1, 0));
    SHOW("would wait", op(id, 0, -5, IPC_NOWAIT));
    SHOW("zero would wait", op(id, 0, 0, IPC_NOWAIT));
    CHECK("pid", semctl(id, 0, GETPID) == getpid());
    struct sembuf both[2] = {{0, -1, IPC_NOWAIT}, {1, -1, IPC_NOWAIT}};
    SHOW("all or nothing", semop(id, both, 2));
    SHOW("untouched", value(id, 0));
    struct sembuf seq[2] = {{1, 3, 0}, {1, -2, 0}};
    SHOW("in order", semop(id, seq, 2));
    SHOW("sum", value(id, 1));
    unsigned short all[3] = {7, 8, 9}, got[3];
    SHOW("set all", semctl(id, 0, SETALL, (union semun){.array = all}));
    SHOW("get all", semctl(id, 0, GETALL, (union semun){.array = got}));
    CHECK("as set", !memcmp(all, got, sizeof all));
    SHOW("set one", semctl(id, 1, SETVAL, (union semun){.val = 32767}));
    SHOW("too much", op(id, 1, 1, 0));
    SHOW("set too much", semctl(id, 1, SETVAL, (union semun){.val = 32768}));
    SHOW("no such semaphore", op(id, 3, 1, 0));
    SHOW("no such number", semctl(id, 3, GETVAL));
    SHOW("no operations", semop(id, NULL, 0));
    SHOW("too many", semop(id, seq, 1000));

    semctl(id, 0, SETVAL, (union semun){.val = 0});
    struct timespec t = {0, 20000000};
    struct sembuf wait = {0, -1, 0};
    SHOW("timeout", semtimedop(id, &wait, 1, &t));
    IN_CHILD("undo", { op(id, 0, 5, SEM_UNDO); CHECK("up by 5", value(id, 0) == 5); });
    SHOW("undone", value(id, 0));

    pid_t child = fork();
    if (child == 0) {
        int r = op(id, 0, -1, SEM_UNDO);
        _exit(r == 0 && value(id, 0) == 0 ? 0 : 1);
    }
    while (semctl(id, 0, GETNCNT) != 1) usleep(1000);
    SHOW("waiting for zero", semctl(id, 0, GETZCNT));
    SHOW("wake", op(id, 0, 1, 0));
    int st;
    waitpid(child, &st, 0);
    t_show_status("waiter", st);
    SHOW("given back", value(id, 0));

    struct sigaction sa = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &sa, NULL);
    semctl(id, 0, SETVAL, (union semun){.val = 0});
    ualarm(30000, 0);
    SHOW("a signal ends it in spite of SA_RESTART", op(id, 0, -1, 0));

    child = fork();
    if (child == 0) {
        int r = op(id, 0, -1, 0);
        _exit(r == -1 && errno == EIDRM ? 0 : 1);
    }
    while (semctl(id, 0, GETNCNT) != 1) usleep(1000);
    struct semid_ds ds;
    SHOW("stat", semctl(id, 0, IPC_STAT, (union semun){.buf = &ds}));
    CHECK("three", ds.sem_nsems == 3);
    SHOW("remove", semctl(id, 0, IPC_RMID));
    waitpid(child, &st, 0);
    t_show_status("told", st);
    SHOW("gone", op(id, 0, 1, 0));
    SHOW("none", semget(IPC_PRIVATE, 0, IPC_CREAT));
    END;
}
