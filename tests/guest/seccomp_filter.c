// seccomp: strict mode, filters (errno, trap, kill, log), precedence, inheritance, TSYNC, refusals.
#include "t.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

static long install(unsigned nr, unsigned action, unsigned flags) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {.len = sizeof code / sizeof *code, .filter = code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

static siginfo_t seen;
static void on_sys(int sig, siginfo_t *si, void *ctx) {
    (void)sig;
    seen = *si;
    ucontext_t *uc = ctx;
    CHECK("rax is the number", uc->uc_mcontext.gregs[REG_RAX] == SYS_getuid);
    uc->uc_mcontext.gregs[REG_RAX] = 4242;
}

static volatile int go;
static void *thread(void *arg) {
    (void)arg;
    while (!go) usleep(1000);
    errno = 0;
    return (void *)(long)(syscall(SYS_getppid) == -1 && errno == EACCES);
}

static int status_field(const char *name) {
    char line[256];
    int value = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, name, strlen(name))) value = atoi(line + strlen(name) + 1);
    if (f) fclose(f);
    return value;
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) {
        SHOW("kept by exec", getppid());
        return 0;
    }
    SHOW("mode", prctl(PR_GET_SECCOMP));
    IN_CHILD("unprivileged", {
        if (setuid(1000)) DIE("setuid");
        SHOW("without no_new_privs", install(SYS_getppid, SECCOMP_RET_ERRNO | EACCES, 0));
        SHOW("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        SHOW("with", install(SYS_getppid, SECCOMP_RET_ERRNO | EACCES, 0));
    });
    IN_CHILD("errno", {
        SHOW("install", install(SYS_getppid, SECCOMP_RET_ERRNO | EACCES, 0));
        SHOW("refused", getppid());
        SHOW("mode", prctl(PR_GET_SECCOMP));
        CHECK("status", status_field("Seccomp:") == 2 && status_field("Seccomp_filters:") == 1);
        SHOW("second", install(SYS_getppid, SECCOMP_RET_ERRNO | EPERM, 0));
        SHOW("newest of equals", getppid());
        SHOW("third", install(SYS_getppid, SECCOMP_RET_LOG, 0));
        SHOW("strictest", getppid());
        SHOW("zero errno", install(SYS_getuid, SECCOMP_RET_ERRNO, 0));
        SHOW("answers 0", syscall(SYS_getuid));
        IN_CHILD("inherited", SHOW("refused", getppid()));
        SHOW("strict after filters", prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        execl("/proc/self/exe", "x", "after-exec", NULL);
        DIE("execl");
    });
    IN_CHILD("trap", {
        struct sigaction sa = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
        sigaction(SIGSYS, &sa, NULL);
        SHOW("install", install(SYS_getuid, SECCOMP_RET_TRAP | 7, 0));
        SHOW("answer of the handler", syscall(SYS_getuid));
        CHECK("siginfo", seen.si_code == SYS_SECCOMP && seen.si_errno == 7 && seen.si_syscall == SYS_getuid &&
                             seen.si_arch == AUDIT_ARCH_X86_64 && seen.si_call_addr);
    });
    IN_CHILD("trap without a handler", { install(SYS_getuid, SECCOMP_RET_TRAP, 0); syscall(SYS_getuid); });
    IN_CHILD("kill process", { install(SYS_getuid, SECCOMP_RET_KILL_PROCESS, 0); syscall(SYS_getuid); });
    IN_CHILD("kill thread", { install(SYS_getuid, SECCOMP_RET_KILL_THREAD, 0); syscall(SYS_getuid); });
    IN_CHILD("trace without a tracer", { install(SYS_getuid, SECCOMP_RET_TRACE, 0); SHOW("getuid", syscall(SYS_getuid)); });
    IN_CHILD("strict", {
        SHOW("set", prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        if (write(1, "ok write\n", 9) != 9) syscall(SYS_exit, 1);
        syscall(SYS_exit, 3);
    });
    IN_CHILD("strict, other call", { prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); syscall(SYS_getuid); });
    IN_CHILD("tsync", {
        pthread_t t;
        void *r;
        pthread_create(&t, NULL, thread, NULL);
        SHOW("install", install(SYS_getppid, SECCOMP_RET_ERRNO | EACCES, SECCOMP_FILTER_FLAG_TSYNC));
        go = 1;
        pthread_join(t, &r);
        CHECK("all threads", r == (void *)1);
    });
    struct sock_filter bad[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog prog = {.len = 2, .filter = bad};
    SHOW("out of bounds", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
    prog.len = 0;
    SHOW("empty", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
    prog = (struct sock_fprog){.len = 1, .filter = NULL};
    SHOW("bad address", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
    SHOW("bad flags", install(0, 0, 1 << 20));
    SHOW("bad operation", syscall(SYS_seccomp, 99, 0, NULL));
    unsigned act = SECCOMP_RET_ERRNO;
    SHOW("available", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &act));
    act = 0x12340000;
    SHOW("not available", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &act));
    END;
}
