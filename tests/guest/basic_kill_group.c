// A group that forks without end is killed by one signal: nobody is born past it.
#include "t.h"
#include <sys/prctl.h>

static void breed(int generations) {
    for (;;) {
        pid_t p = fork();
        if (p == 0 && generations-- == 0) _exit(0);
        if (p > 0) while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
}

int main(void) {
    // Orphans come to us, so that we see each.
    if (prctl(PR_SET_CHILD_SUBREAPER, 1)) DIE("prctl");
    for (int round = 0; round < 5; round++) {
        int ready[2];
        char byte;
        if (pipe(ready)) DIE("pipe");
        pid_t p = fork();
        if (p == 0) {
            setpgid(0, 0);
            if (write(ready[1], "r", 1) != 1) _exit(1);
            close(ready[1]);
            breed(2);
        }
        close(ready[1]);
        if (read(ready[0], &byte, 1) != 1) DIE("read");
        usleep(1000 * round);
        if (kill(-p, SIGKILL)) DIE("kill");
        // All that were there end; one born past the signal would go on for ever.
        while (wait(NULL) > 0) {}
        if (errno != ECHILD) DIE("wait");
        close(ready[0]);
    }
    CHECK("nobody is left", 1);
    return t_failed;
}
