// Shared by the programs that are checkpointed: everything behind "--- ready" is printed by the original and by every
// sandbox restored from it, and must be what a native run prints.
#ifndef CKPT_H
#define CKPT_H
#include "t.h"

// Says that the program is ready. Natively there is nobody to hear it.
__attribute__((unused)) static void ready(void)
{
    printf("--- ready\n");
    fflush(stdout);
    int fd = open("/proc/nanovisor/checkpoint", O_WRONLY);
    if (fd < 0) return;
    if (write(fd, "ready\n", 6) != 6) {
        printf("FAIL checkpoint: %s\n", strerrorname_np(errno));
        fflush(stdout);
        _exit(98);
    }
    close(fd);
}

// Waits until `tid` of process `pid` sleeps in a call, so that it is saved there.
__attribute__((unused)) static void until_asleep(pid_t pid, pid_t tid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
    for (int i = 0; i < 2000; i++) {
        int fd = open(path, O_RDONLY);
        ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
        if (fd >= 0) close(fd);
        line[n > 0 ? n : 0] = 0;
        char *end = strrchr(line, ')');
        if (end && end[1] && end[2] == 'S') return;
        usleep(1000);
    }
    printf("FAIL: %d does not sleep\n", tid);
}
#endif
