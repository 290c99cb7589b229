// build: static
// getrusage(2), wait4(2) and /proc/self/status: the largest resident set, faults, context switches.
#include "t.h"
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

enum { MB = 1 << 20 };

static struct rusage usage(int who) {
    struct rusage u;
    memset(&u, 0, sizeof u);
    if (getrusage(who, &u) != 0) DIE("getrusage");
    return u;
}

// Touches `size` bytes and gives them back.
static void grow(size_t size) {
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, size);
    munmap(p, size);
}

static long status(const char *name) {
    char line[200];
    long value = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0) value = strtol(strchr(line, ':') + 1, NULL, 10);
    if (f) fclose(f);
    return value;
}

static int between(long v, long low, long high) { return v >= low && v < high; }

int main(int argc, char **argv) {
    if (argc > 1) return 0;
    long before = usage(RUSAGE_SELF).ru_maxrss;
    CHECK("small at first", between(before, 100, 20000));
    CHECK("no children", usage(RUSAGE_CHILDREN).ru_maxrss == 0);
    for (int big = 0; big < 2; big++) {
        pid_t pid = fork();
        if (pid == 0) {
            grow(big ? 40 * MB : 4 * MB);
            // The program that grew is not the one that ends.
            if (big) execv(argv[0], (char *[]){argv[0], "x", NULL});
            _exit(0);
        }
        int st;
        struct rusage u;
        wait4(pid, &st, 0, &u);
        CHECK("a child's", big ? between(u.ru_maxrss, 40000, 70000) : between(u.ru_maxrss, 4000, 30000));
    }
    CHECK("the largest child's", between(usage(RUSAGE_CHILDREN).ru_maxrss, 40000, 70000));
    CHECK("not ours", usage(RUSAGE_SELF).ru_maxrss < 30000);
    pid_t pid = fork();
    if (pid == 0) {
        if (fork() == 0) grow(80 * MB), _exit(0);
        wait(NULL);
        _exit(0);
    }
    int st;
    struct rusage u;
    wait4(pid, &st, 0, &u);
    CHECK("a grandchild's counts for its parent's end", between(u.ru_maxrss, 80000, 110000));
    CHECK("and for the children", between(usage(RUSAGE_CHILDREN).ru_maxrss, 80000, 110000));
    grow(20 * MB);
    CHECK("the most that it was", between(usage(RUSAGE_SELF).ru_maxrss, 20000, 60000));
    CHECK("by thread", usage(RUSAGE_THREAD).ru_maxrss == usage(RUSAGE_SELF).ru_maxrss);
    CHECK("VmHWM", between(status("VmHWM"), 20000, 60000) && status("VmRSS") < 20000);
    CHECK("VmPeak", status("VmPeak") >= status("VmSize") + 20000);
    CHECK("faults", usage(RUSAGE_SELF).ru_minflt > 0 && usage(RUSAGE_CHILDREN).ru_minflt > 0);
    long waits = usage(RUSAGE_SELF).ru_nvcsw, told = status("voluntary_ctxt_switches");
    for (int i = 0; i < 20; i++) nanosleep(&(struct timespec){0, 100000}, NULL);
    CHECK("waits", usage(RUSAGE_SELF).ru_nvcsw >= waits + 20 && status("voluntary_ctxt_switches") >= told + 20);
    SHOW("who", getrusage(7, &u));
    SHOW("where", getrusage(RUSAGE_SELF, (void *)8));
    return t_failed;
}
