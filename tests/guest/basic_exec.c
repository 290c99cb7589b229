// build: static dynamic
// exec: arguments, environment, descriptors, masks, scripts, vfork, errors.
#include "t.h"
#include <sys/stat.h>
#include <spawn.h>

extern char **environ;

static void put(const char *path, int mode, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) DIE(path);
    fchmod(fd, mode);
    close(fd);
}

static int again(int argc, char **argv) {
    printf("again: %d args, [%s] [%s]\n", argc, argv[0], argc > 2 ? argv[2] : "");
    for (char **e = environ; *e; e++) printf("env %s\n", *e);
    printf("fd 20 %s, fd 21 %s\n", fcntl(20, F_GETFD) < 0 ? "closed" : "open", fcntl(21, F_GETFD) < 0 ? "closed" : "open");
    sigset_t set;
    sigprocmask(0, NULL, &set);
    printf("USR1 blocked %d\n", sigismember(&set, SIGUSR1));
    struct sigaction sa;
    sigaction(SIGUSR2, NULL, &sa);
    printf("USR2 default %d\n", sa.sa_handler == SIG_DFL);
    sigaction(SIGHUP, NULL, &sa);
    printf("HUP ignored %d\n", sa.sa_handler == SIG_IGN);
    fflush(stdout);
    return 3;
}

static void handler(int s) { (void)s; }

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "again") == 0) return again(argc, argv);
    char self[256] = {0};
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) DIE("/proc/self/exe");
    dup2(1, 20);
    dup2(1, 21);
    fcntl(20, F_SETFD, FD_CLOEXEC);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGUSR2, handler);
    signal(SIGHUP, SIG_IGN);
    char *args[] = {"name", "again", "space and 'quote'", "", NULL};
    char *env[] = {"A=1", "B=two words", "EMPTY=", NULL};
    IN_CHILD("execve", { execve(self, args, env); _exit(9); });
    IN_CHILD("empty environment", { execve(self, args, (char *[]){NULL}); _exit(9); });
    fflush(stdout);
    volatile int in_child = 0;
    pid_t pid = vfork();
    if (pid == 0) { in_child = 1; execve(self, args, env); _exit(9); }
    int st;
    waitpid(pid, &st, 0);
    CHECK("vfork shares memory", in_child == 1);
    t_show_status("vfork", st);
    int spawned = posix_spawn(&pid, self, NULL, NULL, args, env);
    waitpid(pid, &st, 0);
    CHECK("spawn", spawned == 0);
    t_show_status("spawn", st);
    put("/tmp/s1", 0755, "#!/bin/sh\necho \"script $0 [$1] [$2]\"\nexit 4\n");
    put("/tmp/s2", 0755, "#!/bin/echo  one argument only  \n");
    put("/tmp/s3", 0755, "#!/tmp/s2\n");
    put("/tmp/s4", 0755, "#!/no/such\n");
    put("/tmp/s5", 0755, "echo no header\n");
    put("/tmp/s6", 0644, "#!/bin/sh\n");
    put("/tmp/s7", 0755, "");
    put("/tmp/s8", 0755, "#!/tmp/s8\n");
    put("/tmp/s9", 0755, "#!\n");
    IN_CHILD("script", { execl("/tmp/s1", "zero", "a b", "c", NULL); _exit(9); });
    IN_CHILD("interpreter's argument", { execl("/tmp/s2", "zero", "x", NULL); _exit(9); });
    IN_CHILD("script of a script", { execl("/tmp/s3", "zero", "x", NULL); _exit(9); });
    for (int i = 4; i <= 9; i++) {
        char path[16];
        snprintf(path, sizeof path, "/tmp/s%d", i);
        SHOW(path, execl(path, path, NULL));
    }
    SHOW("missing", execl("/no/such/file", "x", NULL));
    SHOW("a directory", execl("/tmp", "x", NULL));
    SHOW("below a file", execl("/tmp/s1/x", "x", NULL));
    SHOW("empty path", execl("", "x", NULL));
    IN_CHILD("fexecve", { int fd = open(self, O_RDONLY | O_CLOEXEC); fexecve(fd, args, env); _exit(9); });
    IN_CHILD("execvp by PATH", { execlp("echo", "echo", "found", NULL); _exit(9); });
    // 100,000 bytes in one argument and 2,000 arguments; one of 128 KiB and more is refused.
    char *big = malloc(200000);
    memset(big, 'x', 199999);
    big[199999] = 0;
    SHOW("argument too long", execl("/bin/true", "true", big, NULL));
    big[100000] = 0;
    IN_CHILD("long argument", {
        dup2(open("/dev/null", O_WRONLY), 1);
        execl("/bin/sh", "sh", "-c", "test ${#1} = 100000", "sh", big, NULL);
        _exit(9);
    });
    char *many[2003] = {"sh", "-c", "exit $(($# - 1900))", "sh"};
    for (int i = 4; i < 2002; i++) many[i] = "arg";
    IN_CHILD("many arguments", { execv("/bin/sh", many); _exit(9); });
    char **huge = malloc(sizeof *huge * 40000);
    big[1000] = 0;
    for (int i = 0; i < 39999; i++) huge[i] = big;
    huge[39999] = NULL;
    SHOW("arguments beyond the limit", execv("/bin/true", huge));
    END;
}
