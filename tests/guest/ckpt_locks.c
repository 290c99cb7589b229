// Record locks of processes and of open files, flock, and who waits for them.
#include "ckpt.h"
#include <pthread.h>
#include <sys/file.h>
#include <sys/wait.h>

static int record(int fd, int cmd, short kind, off_t start, off_t len)
{
    struct flock l = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, cmd, &l);
}

static void look(const char *what, int fd, int cmd, off_t start, pid_t mine)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
    if (fcntl(fd, cmd, &l)) DIE("getlk");
    printf("%s: kind %d start %ld len %ld %s\n", what, l.l_type, (long)l.l_start, (long)l.l_len,
           l.l_pid == mine ? "mine" : l.l_pid == -1 ? "an open file's" : l.l_type == F_UNLCK ? "free" : "another's");
}

int main(void)
{
    setvbuf(stdout, 0, _IONBF, 0);
    char path[] = "/tmp/ckpt_locksXXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || ftruncate(fd, 4096)) DIE("mkstemp");
    int other = open(path, O_RDWR), whole = open(path, O_RDWR), second = open(path, O_RDWR);
    int go[2], said[2];
    if (other < 0 || whole < 0 || second < 0 || pipe(go) || pipe(said)) DIE("open");
    if (record(fd, F_SETLK, F_WRLCK, 0, 10) || record(fd, F_SETLK, F_RDLCK, 100, 50)) DIE("setlk");
    if (record(other, F_OFD_SETLK, F_WRLCK, 1000, 0)) DIE("ofd");
    if (flock(whole, LOCK_EX)) DIE("flock");
    pid_t parent = getpid();
    // One waits for a record, one for the whole.
    pid_t first = fork();
    if (!first) {
        int mine = open(path, O_RDWR);
        if (record(mine, F_SETLKW, F_WRLCK, 5, 1)) DIE("setlkw");
        look("the child sees its parent's", mine, F_GETLK, 100, parent);
        if (write(said[1], "r", 1) != 1) DIE("say");
        _exit(0);
    }
    pid_t waiter = fork();
    if (!waiter) {
        int mine = open(path, O_RDWR);
        if (flock(mine, LOCK_SH)) DIE("flock");
        if (write(said[1], "f", 1) != 1) DIE("say");
        char c;
        if (read(go[0], &c, 1) != 1) DIE("go");
        _exit(0);
    }
    until_asleep(first, first);
    until_asleep(waiter, waiter);
    ready();
    char c = 0;
    look("of an open file", fd, F_GETLK, 2000, parent);
    look("of a process, asked by an open file", second, F_OFD_GETLK, 120, parent);
    SHOW("flock is held", flock(second, LOCK_SH | LOCK_NB));
    SHOW("a record of an open file is held", record(second, F_OFD_SETLK, F_RDLCK, 5000, 1));
    SHOW("our own may change", record(fd, F_SETLK, F_UNLCK, 0, 4));
    // The child prints before it says so, we behind.
    int given = record(fd, F_SETLK, F_UNLCK, 0, 10);
    SHOW("said", read(said[0], &c, 1));
    SHOW("the record is given up", given);
    printf("it says %c\n", c);
    if (waitpid(first, 0, 0) != first) DIE("wait");
    SHOW("give the whole up", flock(whole, LOCK_UN));
    SHOW("said", read(said[0], &c, 1));
    printf("it says %c\n", c);
    SHOW("shared now", flock(second, LOCK_EX | LOCK_NB));
    if (write(go[1], "g", 1) != 1 || waitpid(waiter, 0, 0) != waiter) DIE("wait");
    SHOW("free now", flock(second, LOCK_EX | LOCK_NB));
    close(other);
    SHOW("gone with its open file", record(second, F_OFD_SETLK, F_RDLCK, 5000, 1));
    int again = open(path, O_RDONLY);
    close(again);
    look("a close gives the process's up", second, F_OFD_GETLK, 120, parent);
    unlink(path);
    return 0;
}
