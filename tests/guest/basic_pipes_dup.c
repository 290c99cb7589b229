// Pipes between processes, redirections, broken pipes, non-blocking ends, capacities.
#include "t.h"
#include <sys/ioctl.h>
#include <sys/uio.h>

int main(void) {
    int p[2], q[2];
    char buf[70000];
    if (pipe(p) || pipe2(q, O_CLOEXEC)) DIE("pipe");
    SHOW("capacity", fcntl(p[1], F_GETPIPE_SZ));
    SHOW("set capacity", fcntl(p[1], F_SETPIPE_SZ, 5000));
    fcntl(p[1], F_SETPIPE_SZ, 65536);
    fcntl(p[1], F_SETFL, O_NONBLOCK);
    memset(buf, 'z', sizeof buf);
    SHOW("fill", write(p[1], buf, sizeof buf));
    SHOW("full", write(p[1], buf, 1));
    int avail;
    ioctl(p[0], FIONREAD, &avail);
    printf("readable %d\n", avail);
    SHOW("drain", read(p[0], buf, sizeof buf));
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    SHOW("empty", read(p[0], buf, 1));
    fcntl(p[0], F_SETFL, 0);
    fcntl(p[1], F_SETFL, 0);
    struct iovec v[3] = {{"one ", 4}, {"two ", 4}, {"three", 5}};
    SHOW("writev", writev(p[1], v, 3));
    SHOW("read", read(p[0], buf, 100));
    printf("[%.13s]\n", buf);
    fflush(stdout);
    // A relay of processes, 4 MiB through each.
    pid_t source = fork();
    if (source == 0) {
        close(p[0]);
        unsigned x = 1;
        for (int i = 0; i < 1024; i++) {
            for (int j = 0; j < 4096; j++) buf[j] = (x = x * 1103515245 + 12345) >> 16;
            if (write(p[1], buf, 4096) != 4096) _exit(1);
        }
        _exit(0);
    }
    close(p[1]);
    pid_t middle = fork();
    if (middle == 0) {
        close(q[0]);
        ssize_t n;
        while ((n = read(p[0], buf, 1000)) > 0) {
            for (int i = 0; i < n; i++) buf[i] ^= 0x55;
            if (write(q[1], buf, n) != n) _exit(1);
        }
        _exit(0);
    }
    close(p[0]);
    close(q[1]);
    unsigned x = 1, sum = 0, bad = 0;
    long total = 0;
    ssize_t n;
    while ((n = read(q[0], buf, sizeof buf)) > 0)
        for (int i = 0; i < n; i++, total++) {
            unsigned char want = ((x = x * 1103515245 + 12345) >> 16) ^ 0x55;
            bad += (unsigned char)buf[i] != want;
            sum = sum * 31 + (unsigned char)buf[i];
        }
    printf("relayed %ld bytes, %u wrong, sum %08x\n", total, bad, sum);
    int st;
    waitpid(source, &st, 0);
    t_show_status("source", st);
    waitpid(middle, &st, 0);
    t_show_status("middle", st);
    close(q[0]);
    IN_CHILD("broken pipe", { int r[2]; if (pipe(r)) _exit(1); close(r[0]); (void)!write(r[1], "x", 1); _exit(2); });
    signal(SIGPIPE, SIG_IGN);
    if (pipe(p)) DIE("pipe");
    close(p[0]);
    SHOW("EPIPE", write(p[1], "x", 1));
    close(p[1]);
    if (pipe(p)) DIE("pipe");
    SHOW("read the writing end", read(p[1], buf, 1));
    SHOW("write the reading end", write(p[0], buf, 1));
    SHOW("seek", lseek(p[0], 0, SEEK_SET));
    // Redirections as a shell makes them.
    int out = open("/tmp/out", O_RDWR | O_CREAT | O_TRUNC, 0600);
    IN_CHILD("redirected", { dup2(out, 1); dup2(1, 2); execl("/bin/sh", "sh", "-c", "echo out; echo err >&2; exit 5", NULL); });
    n = pread(out, buf, 100, 0);
    printf("file has %.*s", (int)n, buf);
    SHOW("offset is shared", lseek(out, 0, SEEK_CUR));
    SHOW("dup of nothing", dup(77));
    SHOW("dup2 to itself", dup2(out, out) == out);
    SHOW("dup3 to itself", dup3(out, out, 0));
    SHOW("dup2 too high", dup2(out, 1 << 30));
    int d = fcntl(out, F_DUPFD_CLOEXEC, 50);
    printf("F_DUPFD_CLOEXEC %d %d\n", d, fcntl(d, F_GETFD));
    END;
}
