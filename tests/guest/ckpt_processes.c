// A tree of processes: zombies, waits, groups, sessions, vfork, exec afterwards.
#include "ckpt.h"
#include <sys/resource.h>
#include <sys/syscall.h>

int main(void)
{
    int hold[2];
    if (pipe(hold)) DIE("pipe");
    pid_t zombie = fork();
    if (zombie == 0) _exit(5);
    pid_t leader = fork();
    if (leader == 0) {
        setsid();
        pid_t inner = fork();
        if (inner == 0) {
            char c;
            close(hold[1]);
            if (read(hold[0], &c, 1) != 1) _exit(1);
            _exit(getsid(0) == getppid() && getpgid(0) == getppid() ? 6 : 7);
        }
        close(hold[1]);
        int status;
        waitpid(inner, &status, 0);
        _exit(10 + WEXITSTATUS(status));
    }
    pid_t waiter = fork();
    if (waiter == 0) {
        // Saved between vfork and the child's exec.
        close(hold[1]);
        pid_t v = vfork();
        if (v == 0) {
            char c;
            if (read(hold[0], &c, 1) != 1) _exit(1);
            execl("/bin/busybox", "busybox", "true", (char *)0);
            _exit(9);
        }
        int status;
        waitpid(v, &status, 0);
        _exit(WEXITSTATUS(status) == 0 ? 20 : 21);
    }
    close(hold[0]);
    struct rlimit limit = {100, 200};
    setrlimit(RLIMIT_NOFILE, &limit);
    setpriority(PRIO_PROCESS, 0, 5);
    int pidfd = syscall(SYS_pidfd_open, leader, 0);
    siginfo_t info;
    waitid(P_PID, zombie, &info, WEXITED | WNOWAIT);
    until_asleep(leader, leader);
    pid_t me = getpid();
    ready();
    int status;
    printf("same pid %d\n", me == getpid());
    SHOW("zombie", waitpid(zombie, &status, WNOHANG) == zombie ? WEXITSTATUS(status) : -1);
    getrlimit(RLIMIT_NOFILE, &limit);
    printf("limit %d %d, nice %d\n", (int)limit.rlim_cur, (int)limit.rlim_max, getpriority(PRIO_PROCESS, 0));
    SHOW("pidfd", syscall(SYS_pidfd_send_signal, pidfd, 0, 0, 0));
    if (write(hold[1], "xx", 2) != 2) DIE("write");
    waitpid(leader, &status, 0);
    printf("leader %d\n", WEXITSTATUS(status));
    waitpid(waiter, &status, 0);
    printf("waiter %d\n", WEXITSTATUS(status));
    SHOW("no more", wait(0));
    IN_CHILD("exec", execl("/bin/busybox", "busybox", "true", (char *)0));
    return 0;
}
