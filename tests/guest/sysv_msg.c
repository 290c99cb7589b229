// System V message queues: order, types, limits, waiting, removal.
#include "t.h"
#include <sys/ipc.h>
#include <sys/msg.h>

struct m { long type; char text[64]; };

static int send(int id, long type, const char *text, int flags) {
    struct m m = {.type = type};
    strcpy(m.text, text);
    return msgsnd(id, &m, strlen(text) + 1, flags);
}

static void receive(const char *name, int id, long type, int flags) {
    struct m m = {0};
    errno = 0;
    long n = msgrcv(id, &m, sizeof m.text, type, flags);
    if (n < 0) printf("%s -> %s\n", name, strerrorname_np(errno));
    else printf("%s -> %ld type %ld %s\n", name, n, m.type, m.text);
    fflush(stdout);
}

int main(void) {
    int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    CHECK("made", id >= 0);
    SHOW("one", send(id, 3, "three", 0));
    SHOW("two", send(id, 1, "one", 0));
    SHOW("three", send(id, 2, "two", 0));
    SHOW("four", send(id, 1, "uno", 0));
    struct msqid_ds ds;
    SHOW("stat", msgctl(id, IPC_STAT, &ds));
    printf("%lu messages, %lu bytes, room for %lu\n", ds.msg_qnum, ds.__msg_cbytes, ds.msg_qbytes);
    receive("first", id, 0, 0);
    receive("of type", id, 1, 0);
    receive("lowest up to", id, -2, 0);
    receive("except", id, 5, MSG_EXCEPT);
    receive("none", id, 0, IPC_NOWAIT);
    SHOW("bad type", send(id, 0, "x", 0));
    SHOW("long", send(id, 1, "a long message", 0));
    struct m m;
    SHOW("no room", msgrcv(id, &m, 4, 0, 0));
    SHOW("cut", msgrcv(id, &m, 4, 0, MSG_NOERROR));
    CHECK("text", !memcmp(m.text, "a lo", 4));
    static struct { long type; char text[8192]; } big = {.type = 1};
    SHOW("largest", msgsnd(id, &big, 8192, 0));
    SHOW("too large", msgsnd(id, &big, 8193, 0));
    SHOW("second", msgsnd(id, &big, 8192, 0));
    SHOW("full", msgsnd(id, &big, 1, IPC_NOWAIT));
    pid_t child = fork();
    if (child == 0) _exit(msgsnd(id, &big, 100, 0) ? 1 : 0);
    usleep(30000);
    SHOW("make room", msgrcv(id, &big, 8192, 0, 0));
    int st;
    waitpid(child, &st, 0);
    t_show_status("sender", st);
    SHOW("drain", msgrcv(id, &big, 8192, 0, 0));
    SHOW("drain", msgrcv(id, &big, 8192, 0, 0));
    child = fork();
    if (child == 0) {
        int r = msgrcv(id, &big, 100, 0, 0);
        _exit(r == -1 && errno == EIDRM ? 0 : 1);
    }
    usleep(30000);
    SHOW("remove", msgctl(id, IPC_RMID, NULL));
    waitpid(child, &st, 0);
    t_show_status("receiver told", st);
    SHOW("gone", send(id, 1, "x", 0));
    SHOW("unknown key", msgget(0x5eed0002, 0));
    END;
}
