// ptrace: TRACEME, syscall stops, signals, memory, registers, single steps, events, attach, seize, detach.
#include "t.h"
#include <elf.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>

static long pt(int request, pid_t pid, long addr, long data) { return syscall(SYS_ptrace, request, pid, addr, data); }

static int status_of(const char *name, pid_t pid) {
    int st = 0;
    pid_t got = waitpid(pid, &st, __WALL);
    if (got != pid) printf("FAIL %s: waitpid %d %s\n", name, got, strerror(errno));
    if (WIFSTOPPED(st) && st >> 16) printf("%s: event %d signal %s\n", name, st >> 16, sigabbrev_np(WSTOPSIG(st) & 0x7f));
    else if (WIFSTOPPED(st) && WSTOPSIG(st) & 0x80) printf("%s: system call\n", name);
    else t_show_status(name, st);
    fflush(stdout);
    return st;
}

static volatile long target = 0x1111;
static volatile int handled;
static void on_usr1(int sig) { (void)sig; handled++; }

static int read_only_function(void) { return 7; }

static void child_main(void) {
    pt(PTRACE_TRACEME, 0, 0, 0);
    signal(SIGUSR1, on_usr1);
    raise(SIGSTOP);
    syscall(SYS_getppid);
    raise(SIGUSR1);
    raise(SIGUSR2);
    pid_t pid = fork();
    if (pid == 0) _exit(5);
    waitpid(pid, NULL, 0);
    _exit(handled == 0 && target == 0x2222 && read_only_function() == 7 ? 42 : 1);
}

int main(void) {
    pid_t pid = fork();
    if (pid == 0) child_main();
    status_of("first stop", pid);
    SHOW("trace a stranger's child again", pt(PTRACE_ATTACH, pid, 0, 0));
    SHOW("options", pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXIT));
    SHOW("bad options", pt(PTRACE_SETOPTIONS, pid, 0, 1 << 15));
    SHOW("poke", pt(PTRACE_POKEDATA, pid, (long)&target, 0x2222));
    long word = 0;
    SHOW("peek", pt(PTRACE_PEEKDATA, pid, (long)&target, (long)&word));
    CHECK("poked", word == 0x2222 && target == 0x1111);
    SHOW("peek nowhere", pt(PTRACE_PEEKDATA, pid, 16, (long)&word));
    SHOW("peek text", pt(PTRACE_PEEKTEXT, pid, (long)read_only_function, (long)&word));
    SHOW("poke text", pt(PTRACE_POKETEXT, pid, (long)read_only_function, word));
    struct iovec mine = {&word, 8}, theirs = {(void *)&target, 8};
    SHOW("process_vm_readv", process_vm_readv(pid, &mine, 1, &theirs, 1, 0));
    CHECK("the same", word == 0x2222);

    SHOW("syscall", pt(PTRACE_SYSCALL, pid, 0, 0));
    struct user_regs_struct regs;
    int found = 0;
    // raise() ends with a mask change, before getppid.
    for (int i = 0; i < 20 && !found; i++) {
        int st = 0;
        waitpid(pid, &st, 0);
        pt(PTRACE_GETREGS, pid, 0, (long)&regs);
        found = WIFSTOPPED(st) && WSTOPSIG(st) == (SIGTRAP | 0x80) && regs.orig_rax == SYS_getppid;
        if (!found) pt(PTRACE_SYSCALL, pid, 0, 0);
    }
    CHECK("at getppid", found && (long)regs.rax == -ENOSYS);
    struct __ptrace_syscall_info info;
    SHOW("call info", pt(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, (long)&info));
    CHECK("entry", info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_getppid);
    struct iovec iov = {&regs, sizeof regs};
    SHOW("regset", pt(PTRACE_GETREGSET, pid, NT_PRSTATUS, (long)&iov));
    CHECK("whole", iov.iov_len == sizeof regs);
    char big[8192];
    iov = (struct iovec){big, sizeof big};
    SHOW("xstate", pt(PTRACE_GETREGSET, pid, NT_X86_XSTATE, (long)&iov));
    CHECK("some", iov.iov_len >= 576);
    pt(PTRACE_SYSCALL, pid, 0, 0);
    status_of("exit of it", pid);
    pt(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, (long)&info);
    CHECK("exit", info.op == PTRACE_SYSCALL_INFO_EXIT && info.exit.rval == getpid() && !info.exit.is_error);

    SHOW("go on", pt(PTRACE_CONT, pid, 0, 0));
    status_of("usr1", pid);
    siginfo_t si;
    SHOW("siginfo", pt(PTRACE_GETSIGINFO, pid, 0, (long)&si));
    CHECK("of usr1", si.si_signo == SIGUSR1 && si.si_pid == pid);
    SHOW("suppressed", pt(PTRACE_CONT, pid, 0, 0));
    status_of("usr2", pid);
    SHOW("suppressed", pt(PTRACE_CONT, pid, 0, 0));
    status_of("fork", pid);
    unsigned long message = 0;
    SHOW("message", pt(PTRACE_GETEVENTMSG, pid, 0, (long)&message));
    pid_t grandchild = message;
    status_of("grandchild", grandchild);
    SHOW("let it go", pt(PTRACE_DETACH, grandchild, 0, 0));
    SHOW("go on", pt(PTRACE_CONT, pid, 0, 0));
    status_of("its child ended", pid);
    SHOW("deliver", pt(PTRACE_CONT, pid, 0, SIGCHLD));
    status_of("exit event", pid);
    pt(PTRACE_GETEVENTMSG, pid, 0, (long)&message);
    CHECK("status", message == 42 << 8);
    pt(PTRACE_CONT, pid, 0, 0);
    status_of("end", pid);
    SHOW("gone", pt(PTRACE_CONT, pid, 0, 0));

    // Attach to one that sleeps: its call is interrupted and restarted.
    int fds[2];
    if (pipe(fds)) DIE("pipe");
    pid = fork();
    if (pid == 0) {
        char c;
        _exit(read(fds[0], &c, 1) == 1 && c == 'x' ? 7 : 8);
    }
    usleep(50000);
    SHOW("attach", pt(PTRACE_ATTACH, pid, 0, 0));
    status_of("attached", pid);
    pt(PTRACE_GETREGS, pid, 0, (long)&regs);
    CHECK("in read", regs.orig_rax == SYS_read && (long)regs.rax == -512);
    SHOW("detach", pt(PTRACE_DETACH, pid, 0, 0));
    usleep(20000);
    if (write(fds[1], "x", 1) != 1) DIE("write");
    status_of("restarted", pid);

    // Seize, interrupt, group stop, listen, kill.
    pid = fork();
    if (pid == 0) for (;;) pause();
    usleep(20000);
    SHOW("seize", pt(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL));
    SHOW("look while it runs", pt(PTRACE_GETREGS, pid, 0, (long)&regs));
    SHOW("interrupt", pt(PTRACE_INTERRUPT, pid, 0, 0));
    status_of("interrupted", pid);
    SHOW("go on", pt(PTRACE_CONT, pid, 0, 0));
    kill(pid, SIGSTOP);
    status_of("stop signal", pid);
    SHOW("deliver", pt(PTRACE_CONT, pid, 0, SIGSTOP));
    status_of("group stop", pid);
    SHOW("listen", pt(PTRACE_LISTEN, pid, 0, 0));
    kill(pid, SIGCONT);
    status_of("continued", pid);
    SHOW("go on", pt(PTRACE_CONT, pid, 0, 0));
    status_of("cont signal", pid);
    SHOW("go on", pt(PTRACE_CONT, pid, 0, 0));
    kill(pid, SIGKILL);
    status_of("killed", pid);

    // Single steps and exec.
    pid = fork();
    if (pid == 0) {
        pt(PTRACE_TRACEME, 0, 0, 0);
        execl("/proc/self/exe", "x", NULL);
        execl("/bin/true", "true", NULL);
        _exit(1);
    }
    status_of("exec trap", pid);
    pt(PTRACE_GETREGS, pid, 0, (long)&regs);
    unsigned long before = regs.rip;
    SHOW("step", pt(PTRACE_SINGLESTEP, pid, 0, 0));
    status_of("stepped", pid);
    pt(PTRACE_GETREGS, pid, 0, (long)&regs);
    CHECK("moved on", regs.rip != before);
    pt(PTRACE_GETSIGINFO, pid, 0, (long)&si);
    CHECK("trap", si.si_signo == SIGTRAP && si.si_code == TRAP_TRACE);
    SHOW("kill", pt(PTRACE_KILL, pid, 0, 0));
    status_of("killed", pid);
    SHOW("nobody", pt(PTRACE_ATTACH, 999999, 0, 0));
    SHOW("oneself", pt(PTRACE_ATTACH, getpid(), 0, 0));
    END;
}
