// Open file description locks and flock: owners, conversion, close, waiting.
// volume: /tmp
#include "t.h"
#include <sys/file.h>
#include <time.h>

static const char *path = "/tmp/locks_ofd";

static int lk(int f, int cmd, short type, off_t start, off_t len) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(f, cmd, &l);
}

static void in_ms(int ms) { struct timespec t = {0, ms * 1000000L}; nanosleep(&t, 0); }
static void nothing(int s) { (void)s; }

static int count(const char *what) {
    FILE *f = fopen("/proc/locks", "r");
    char line[256];
    int n = 0;
    while (f && fgets(line, sizeof line, f)) n += strstr(line, what) != 0;
    if (f) fclose(f);
    return n;
}

int main(void) {
    int a = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644), b = open(path, O_RDWR);
    if (a < 0 || b < 0) DIE("open");
    SHOW("ofd write", lk(a, F_OFD_SETLK, F_WRLCK, 0, 10));
    SHOW("ofd other description", lk(b, F_OFD_SETLK, F_WRLCK, 5, 10));
    SHOW("ofd other read", lk(b, F_OFD_SETLK, F_RDLCK, 9, 1));
    SHOW("ofd beside", lk(b, F_OFD_SETLK, F_WRLCK, 10, 10));
    struct flock g = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    SHOW("ofd get", fcntl(b, F_OFD_GETLK, &g));
    printf("ofd get: type %d start %ld len %ld pid %d\n", g.l_type, (long)g.l_start, (long)g.l_len, g.l_pid);
    struct flock bad = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_pid = 1};
    SHOW("ofd with pid", fcntl(a, F_OFD_SETLK, &bad));
    SHOW("posix against ofd", lk(b, F_SETLK, F_WRLCK, 0, 1));
    g = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
    SHOW("posix get", fcntl(b, F_GETLK, &g));
    printf("posix get: type %d start %ld len %ld pid %d\n", g.l_type, (long)g.l_start, (long)g.l_len, g.l_pid);
    int d = dup(a);
    close(a);
    SHOW("dup keeps it", lk(b, F_OFD_SETLK, F_WRLCK, 0, 1));
    CHECK("/proc/locks has it", count("OFDLCK") >= 2);
    close(d);
    SHOW("last close lets go", lk(b, F_OFD_SETLK, F_WRLCK, 0, 1));
    close(b);

    a = open(path, O_RDWR);
    b = open(path, O_RDONLY);
    SHOW("flock sh", flock(a, LOCK_SH));
    SHOW("flock sh 2", flock(b, LOCK_SH));
    SHOW("flock ex nb", flock(a, LOCK_EX | LOCK_NB));
    SHOW("the shared one was lost", flock(b, LOCK_EX | LOCK_NB));
    SHOW("unlock", flock(b, LOCK_UN));
    SHOW("ex", flock(a, LOCK_EX));
    SHOW("ex other", flock(b, LOCK_EX | LOCK_NB));
    SHOW("downgrade", flock(a, LOCK_SH));
    SHOW("sh other", flock(b, LOCK_SH | LOCK_NB));
    SHOW("flock and posix are apart", lk(a, F_SETLK, F_WRLCK, 0, 0));
    SHOW("invalid", flock(a, 0));
    SHOW("invalid too", flock(a, LOCK_SH | LOCK_EX));
    SHOW("bad fd", flock(77, LOCK_SH));
    int p = open(path, O_PATH);
    SHOW("path", flock(p, LOCK_SH));
    int pfd[2];
    if (pipe(pfd)) DIE("pipe");
    SHOW("pipe", flock(pfd[0], LOCK_EX));
    flock(a, LOCK_UN), flock(b, LOCK_UN);

    flock(a, LOCK_EX);
    IN_CHILD("inherited", {
        SHOW("the same description", flock(a, LOCK_EX | LOCK_NB));
        int c = open(path, O_RDONLY);
        SHOW("another", flock(c, LOCK_EX | LOCK_NB));
        struct sigaction sa = {.sa_handler = nothing};
        sigaction(SIGALRM, &sa, 0);
        ualarm(50000, 0);
        SHOW("interrupted", flock(c, LOCK_EX));
        SHOW("unlock for the parent too", flock(a, LOCK_UN));
        SHOW("now", flock(c, LOCK_EX | LOCK_NB));
    });
    SHOW("parent again", flock(a, LOCK_EX | LOCK_NB));
    pid_t child = fork();
    if (!child) {
        close(a);
        int c = open(path, O_RDONLY);
        _exit(flock(c, LOCK_EX) == 0 ? 3 : 4);
    }
    in_ms(50);
    int st;
    CHECK("waits", waitpid(child, &st, WNOHANG) == 0);
    close(a);
    waitpid(child, &st, 0);
    t_show_status("close woke it", st);
    int dir = open("/tmp", O_RDONLY | O_DIRECTORY);
    SHOW("directory", flock(dir, LOCK_SH | LOCK_NB));
    unlink(path);
    END;
}
