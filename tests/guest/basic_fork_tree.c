// build: static dynamic
// A tree of processes, each waiting for its children; sums come up through exit statuses and pipes.
#include "t.h"

static int tree(int depth, int width) {
    if (depth == 0) return 1;
    int p[2], sum = 1;
    if (pipe(p)) DIE("pipe");
    for (int i = 0; i < width; i++) {
        pid_t pid = fork();
        if (pid < 0) DIE("fork");
        if (pid == 0) {
            close(p[0]);
            int below = tree(depth - 1, width);
            if (write(p[1], &below, sizeof below) != sizeof below) _exit(98);
            _exit(0);
        }
    }
    close(p[1]);
    int below;
    while (read(p[0], &below, sizeof below) == sizeof below) sum += below;
    close(p[0]);
    for (int i = 0; i < width; i++) {
        int st;
        if (wait(&st) < 0 || st != 0) DIE("wait");
    }
    return sum;
}

int main(void) {
    printf("nodes %d\n", tree(4, 3));
    SHOW("no more children", wait(NULL));
    pid_t pids[20];
    for (int i = 0; i < 20; i++)
        if ((pids[i] = fork()) == 0) _exit(i);
    int right = 1;
    for (int i = 19; i >= 0; i--) {
        int st;
        if (waitpid(pids[i], &st, 0) != pids[i] || WEXITSTATUS(st) != i) right = 0;
    }
    CHECK("waiting in reverse", right);
    SHOW("waitpid of a stranger", waitpid(1, NULL, 0) == 1 ? 0 : -1);
    int st;
    pid_t pid = fork();
    if (pid == 0) { pause(); _exit(1); }
    SHOW("WNOHANG while it runs", waitpid(pid, &st, WNOHANG));
    kill(pid, SIGKILL);
    CHECK("reaped", waitpid(pid, &st, 0) == pid);
    t_show_status("killed child", st);
    siginfo_t si;
    pid = fork();
    if (pid == 0) _exit(5);
    memset(&si, 0, sizeof si);
    SHOW("waitid WNOWAIT", waitid(P_PID, pid, &si, WEXITED | WNOWAIT));
    printf("code %d status %d pid right %d signo %d\n", si.si_code == CLD_EXITED, si.si_status, si.si_pid == pid, si.si_signo == SIGCHLD);
    CHECK("still there", waitpid(pid, &st, 0) == pid && WEXITSTATUS(st) == 5);
    SHOW("gone", waitpid(pid, &st, 0));
    SHOW("kill of a reaped process", kill(pid, 0));
    END;
}
