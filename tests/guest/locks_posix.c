// Record locks of processes: ranges, splitting, close, exit, deadlock, waiting, F_GETLK.
// volume: /tmp
#include "t.h"
#include <sys/file.h>
#include <time.h>

static int fd;
static const char *path = "/tmp/locks_posix";

static int lk(int f, int cmd, short type, off_t start, off_t len) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(f, cmd, &l);
}

// Shows as a child sees them the locks of its parent.
static void show(const char *what) {
    printf("%s:", what);
    fflush(stdout);
    pid_t parent = getpid();
    IN_CHILD("", {
        off_t at = 0;
        for (;;) {
            struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 0};
            if (fcntl(fd, F_GETLK, &l)) { printf(" error %d", errno); break; }
            if (l.l_type == F_UNLCK) break;
            printf(" %s[%ld,%ld)%s", l.l_type == F_WRLCK ? "w" : "r", (long)l.l_start, (long)l.l_len, l.l_pid == parent ? "" : "?pid");
            if (l.l_len == 0) break;
            at = l.l_start + l.l_len;
        }
        printf(" ");
    });
}

static void in_ms(int ms) { struct timespec t = {ms / 1000, ms % 1000 * 1000000L}; nanosleep(&t, 0); }

static void nothing(int s) { (void)s; }

int main(void) {
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) DIE("open");
    if (ftruncate(fd, 1000)) DIE("ftruncate");
    SHOW("write lock", lk(fd, F_SETLK, F_WRLCK, 0, 100));
    show("one");
    SHOW("unlock the middle", lk(fd, F_SETLK, F_UNLCK, 40, 20));
    show("split");
    SHOW("read over a part", lk(fd, F_SETLK, F_RDLCK, 30, 40));
    show("three");
    SHOW("write over all", lk(fd, F_SETLK, F_WRLCK, 0, 100));
    show("merged");
    SHOW("adjacent", lk(fd, F_SETLK, F_WRLCK, 100, 0));
    show("to the end");
    SHOW("unlock all", lk(fd, F_SETLK, F_UNLCK, 0, 0));
    show("none");

    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -100, .l_len = 50};
    SHOW("from the end", fcntl(fd, F_SETLK, &l));
    show("from the end");
    lseek(fd, 200, SEEK_SET);
    l = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_CUR, .l_start = 0, .l_len = -100};
    SHOW("negative length", fcntl(fd, F_SETLK, &l));
    show("negative length");
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = -4};
    SHOW("before the start", fcntl(fd, F_SETLK, &l));
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = -1, .l_len = 4};
    SHOW("negative start", fcntl(fd, F_SETLK, &l));
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = INT64_MAX, .l_len = 2};
    SHOW("too long", fcntl(fd, F_SETLK, &l));
    l = (struct flock){.l_type = F_WRLCK, .l_whence = 7, .l_start = 0, .l_len = 2};
    SHOW("bad whence", fcntl(fd, F_SETLK, &l));
    l = (struct flock){.l_type = 9, .l_whence = 0, .l_start = 0, .l_len = 2};
    SHOW("bad type", fcntl(fd, F_SETLK, &l));
    l = (struct flock){.l_type = F_UNLCK, .l_whence = 0, .l_start = 0, .l_len = 2};
    SHOW("get of unlock", fcntl(fd, F_GETLK, &l));
    SHOW("bad address", fcntl(fd, F_SETLK, (void *)8));
    SHOW("bad descriptor", lk(99, F_SETLK, F_WRLCK, 0, 1));
    int ro = open(path, O_RDONLY), wo = open(path, O_WRONLY), p = open(path, O_PATH);
    SHOW("write lock, read only", lk(ro, F_SETLK, F_WRLCK, 0, 1));
    SHOW("read lock, write only", lk(wo, F_SETLK, F_RDLCK, 0, 1));
    SHOW("path", lk(p, F_SETLK, F_RDLCK, 0, 1));
    close(ro);
    show("closing any lets go");

    lk(fd, F_SETLK, F_WRLCK, 0, 10);
    IN_CHILD("conflicts", {
        SHOW("child write", lk(fd, F_SETLK, F_WRLCK, 5, 1));
        SHOW("child read", lk(fd, F_SETLK, F_RDLCK, 5, 1));
        SHOW("child beside", lk(fd, F_SETLK, F_WRLCK, 10, 5));
        SHOW("child unlock does nothing", lk(fd, F_SETLK, F_UNLCK, 0, 10));
        SHOW("child write again", lk(fd, F_SETLK, F_WRLCK, 9, 2));
    });
    show("the child's went with it");

    // A dup closed lets go as well; a lock survives exec-less fork in the parent only.
    lk(fd, F_SETLK, F_WRLCK, 0, 10);
    close(dup(fd));
    show("dup closed");

    // Waiting: the child gets it when the parent lets go.
    lk(fd, F_SETLK, F_WRLCK, 0, 10);
    int pipefd[2] = {-1, -1};
    if (pipe(pipefd)) DIE("pipe");
    pid_t child = fork();
    if (!child) {
        char c = 'x';
        if (write(pipefd[1], &c, 1) != 1) _exit(9);
        _exit(lk(fd, F_SETLKW, F_WRLCK, 0, 10) == 0 ? 3 : 4);
    }
    char c;
    if (read(pipefd[0], &c, 1) != 1) DIE("read");
    in_ms(50);
    int st;
    CHECK("child waits", waitpid(child, &st, WNOHANG) == 0);
    lk(fd, F_SETLK, F_UNLCK, 0, 10);
    waitpid(child, &st, 0);
    t_show_status("child got it", st);

    // Interrupted without SA_RESTART.
    lk(fd, F_SETLK, F_WRLCK, 0, 10);
    IN_CHILD("interrupted", {
        struct sigaction sa = {.sa_handler = nothing};
        sigaction(SIGALRM, &sa, 0);
        ualarm(50000, 0);
        SHOW("setlkw", lk(fd, F_SETLKW, F_WRLCK, 0, 10));
    });

    // Deadlock: the child holds b and waits for a; the parent holds a and wants b.
    lk(fd, F_SETLK, F_UNLCK, 0, 0);
    lk(fd, F_SETLK, F_WRLCK, 0, 1);
    child = fork();
    if (!child) {
        lk(fd, F_SETLK, F_WRLCK, 1, 1);
        char d = 'y';
        if (write(pipefd[1], &d, 1) != 1) _exit(9);
        _exit(lk(fd, F_SETLKW, F_WRLCK, 0, 1) == 0 ? 3 : 4);
    }
    if (read(pipefd[0], &c, 1) != 1) DIE("read");
    in_ms(50);
    SHOW("deadlock", lk(fd, F_SETLKW, F_WRLCK, 1, 1));
    lk(fd, F_SETLK, F_UNLCK, 0, 1);
    waitpid(child, &st, 0);
    t_show_status("the other went on", st);

    // Killed while it waits.
    lk(fd, F_SETLK, F_WRLCK, 0, 10);
    child = fork();
    if (!child) {
        lk(fd, F_SETLKW, F_WRLCK, 0, 10);
        _exit(1);
    }
    in_ms(50);
    kill(child, SIGKILL);
    waitpid(child, &st, 0);
    t_show_status("killed waiter", st);
    lk(fd, F_SETLK, F_UNLCK, 0, 0);
    SHOW("lockf", (lseek(fd, 0, SEEK_SET), lockf(fd, F_TLOCK, 10)));
    IN_CHILD("lockf test", SHOW("F_TEST", lockf(fd, F_TEST, 5)));
    // Locks stay over exec.
    child = fork();
    if (!child) {
        char n[16];
        snprintf(n, sizeof n, "%d", fd);
        lk(fd, F_SETLK, F_WRLCK, 500, 10);
        execl("/bin/sh", "sh", "-c", "sleep 0.3", (char *)0);
        _exit(9);
    }
    in_ms(150);
    SHOW("kept by exec", lk(fd, F_SETLK, F_WRLCK, 500, 10));
    waitpid(child, &st, 0);
    SHOW("gone with it", lk(fd, F_SETLK, F_WRLCK, 500, 10));
    unlink(path);
    (void)wo;
    (void)p;
    END;
}
