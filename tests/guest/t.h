// Shared by the programs here: every check prints one line, so that the first difference names it.
#ifndef T_H
#define T_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((unused)) static int t_failed;

// Prints whether `cond` holds.
#define CHECK(name, cond)                                                        \
    do {                                                                         \
        int t_ok = !!(cond);                                                     \
        if (!t_ok) t_failed = 1;                                                 \
        printf("%s %s\n", t_ok ? "ok" : "FAIL", name);                           \
        fflush(stdout);                                                          \
    } while (0)

// Prints what a call gave: its value, or the errno's name.
#define SHOW(name, call)                                                         \
    do {                                                                         \
        errno = 0;                                                               \
        long t_r = (long)(call);                                                 \
        if (t_r == -1) printf("%s -> %s\n", name, strerrorname_np(errno));       \
        else printf("%s -> %ld\n", name, t_r);                                   \
        fflush(stdout);                                                          \
    } while (0)

// Prints only success or the errno's name, where the value may differ between runs.
#define TRY(name, call)                                                          \
    do {                                                                         \
        errno = 0;                                                               \
        long t_r = (long)(call);                                                 \
        printf("%s -> %s\n", name, t_r == -1 ? strerrorname_np(errno) : "fine"); \
        fflush(stdout);                                                          \
    } while (0)

#define DIE(what)                                                                \
    do {                                                                         \
        printf("FAIL %s: %s\n", what, strerror(errno));                          \
        fflush(stdout);                                                          \
        _exit(99);                                                               \
    } while (0)

// Runs a statement in a child and prints how the child ended.
#define IN_CHILD(name, ...)                                                      \
    do {                                                                         \
        fflush(stdout);                                                          \
        pid_t t_pid = fork();                                                    \
        if (t_pid < 0) DIE("fork");                                              \
        if (t_pid == 0) {                                                        \
            __VA_ARGS__;                                                          \
            fflush(stdout);                                                      \
            _exit(0);                                                            \
        }                                                                        \
        int t_st;                                                                \
        while (waitpid(t_pid, &t_st, 0) < 0)                                     \
            if (errno != EINTR) DIE("waitpid");                                  \
        t_show_status(name, t_st);                                               \
    } while (0)

__attribute__((unused)) static void t_show_status(const char *name, int st) {
    if (WIFEXITED(st)) printf("%s: exited %d\n", name, WEXITSTATUS(st));
    else if (WIFSIGNALED(st)) printf("%s: killed by %s\n", name, sigabbrev_np(WTERMSIG(st)));
    else if (WIFSTOPPED(st)) printf("%s: stopped by %s\n", name, sigabbrev_np(WSTOPSIG(st)));
    else if (WIFCONTINUED(st)) printf("%s: continued\n", name);
    else printf("%s: status %x\n", name, st);
    fflush(stdout);
}

#define END return t_failed

#endif
