// Microbenchmarks of system calls, faults and process operations, in one static program that times itself.
//   nvbench [--rounds N] [--ms N] [NAME]...   prints `name min_ns median_ns` for each (all when none is named)
//   nvbench --check                           runs each a few times and prints `name ok`: a smoke test
//   nvbench --true                            exits at once: what fork+exec runs
// Each benchmark runs batches: first a warm-up that also finds how many operations fill --ms, then --rounds timed ones.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MAX_ROUNDS 101

static const char *self_path;
static const char *file_path;

static void die(const char *what) {
    fprintf(stderr, "nvbench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

// A benchmark does `n` operations and returns the nanoseconds they took, without its own preparation.
typedef uint64_t (*bench_fn)(long n);

static uint64_t b_getppid(long n) {
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++) syscall(SYS_getppid);
    return now_ns() - start;
}

static uint64_t b_stat(long n) {
    struct stat st;
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++)
        if (stat(file_path, &st) < 0) die("stat");
    return now_ns() - start;
}

static uint64_t b_open_close(long n) {
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++) {
        int fd = open(file_path, O_RDONLY);
        if (fd < 0) die("open");
        close(fd);
    }
    return now_ns() - start;
}

static uint64_t b_pread_4k(long n) {
    char buffer[PAGE];
    int fd = open(file_path, O_RDONLY);
    if (fd < 0) die("open");
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++)
        if (pread(fd, buffer, PAGE, (i % 16) * (long)PAGE) != (ssize_t)PAGE) die("pread");
    uint64_t spent = now_ns() - start;
    close(fd);
    return spent;
}

// Two processes, a byte each way an operation.
static uint64_t b_pipe_pingpong(long n) {
    int there[2], back[2];
    char byte = 0;
    if (pipe(there) < 0 || pipe(back) < 0) die("pipe");
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1) _exit(1);
        _exit(0);
    }
    close(there[0]);
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) die("pipe ping-pong");
    uint64_t spent = now_ns() - start;
    close(there[1]);
    close(back[0]);
    close(back[1]);
    waitpid(child, NULL, 0);
    return spent;
}

static void futex_wait(uint32_t *word, uint32_t value, int shared) {
    syscall(SYS_futex, word, shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(uint32_t *word, int shared) {
    syscall(SYS_futex, word, shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

struct futex_game {
    uint32_t turn;
    int shared;
    long n;
};

// Plays one side: waits for its turn, hands it over, n times. No spinning: every hand-over is a wake-up.
static void futex_side(struct futex_game *game, uint32_t mine) {
    for (long i = 0; i < game->n; i++) {
        while (__atomic_load_n(&game->turn, __ATOMIC_ACQUIRE) != mine) futex_wait(&game->turn, 1 - mine, game->shared);
        __atomic_store_n(&game->turn, 1 - mine, __ATOMIC_RELEASE);
        futex_wake(&game->turn, game->shared);
    }
}

static void *futex_thread(void *game) {
    futex_side(game, 1);
    return NULL;
}

static uint64_t b_futex_threads(long n) {
    struct futex_game game = {0, 0, n};
    pthread_t thread;
    if (pthread_create(&thread, NULL, futex_thread, &game) != 0) die("pthread_create");
    uint64_t start = now_ns();
    futex_side(&game, 0);
    uint64_t spent = now_ns() - start;
    pthread_join(thread, NULL);
    return spent;
}

static uint64_t b_futex_processes(long n) {
    struct futex_game *game = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (game == MAP_FAILED) die("mmap");
    *game = (struct futex_game){0, 1, n};
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        futex_side(game, 1);
        _exit(0);
    }
    uint64_t start = now_ns();
    futex_side(game, 0);
    uint64_t spent = now_ns() - start;
    waitpid(child, NULL, 0);
    munmap(game, PAGE);
    return spent;
}

static uint64_t b_anon_fault(long n) {
    char *area = mmap(NULL, (size_t)n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) die("mmap");
    // Small pages natively too: a huge page would make one fault of 512.
    madvise(area, (size_t)n * PAGE, MADV_NOHUGEPAGE);
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++) ((volatile char *)area)[(size_t)i * PAGE] = 1;
    uint64_t spent = now_ns() - start;
    munmap(area, (size_t)n * PAGE);
    return spent;
}

static uint64_t b_cow_fault(long n) {
    size_t size = (size_t)n * PAGE;
    char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t *spent = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED || spent == MAP_FAILED) die("mmap");
    madvise(area, size, MADV_NOHUGEPAGE);
    memset(area, 1, size);
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        uint64_t start = now_ns();
        for (long i = 0; i < n; i++) ((volatile char *)area)[(size_t)i * PAGE] = 2;
        *spent = now_ns() - start;
        _exit(0);
    }
    waitpid(child, NULL, 0);
    uint64_t result = *spent;
    munmap(area, size);
    munmap(spent, PAGE);
    return result;
}

static void wait_ok(pid_t child, const char *what) {
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) die(what);
}

static uint64_t b_fork_exit(long n) {
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        wait_ok(child, "fork");
    }
    return now_ns() - start;
}

static uint64_t b_fork_exec(long n) {
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++) {
        pid_t child = fork();
        if (child == 0) {
            execl(self_path, self_path, "--true", (char *)NULL);
            _exit(127);
        }
        wait_ok(child, "fork and exec");
    }
    return now_ns() - start;
}

static void *empty_thread(void *arg) { return arg; }

static uint64_t b_thread(long n) {
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, empty_thread, NULL) != 0) die("pthread_create");
        pthread_join(thread, NULL);
    }
    return now_ns() - start;
}

static uint64_t b_mmap_munmap(long n) {
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++) {
        char *area = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED) die("mmap");
        munmap(area, 16 * PAGE);
    }
    return now_ns() - start;
}

static uint64_t b_mprotect(long n) {
    char *area = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) die("mmap");
    memset(area, 1, 16 * PAGE);
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++)
        if (mprotect(area, 16 * PAGE, PROT_READ) < 0 || mprotect(area, 16 * PAGE, PROT_READ | PROT_WRITE) < 0)
            die("mprotect");
    uint64_t spent = now_ns() - start;
    munmap(area, 16 * PAGE);
    return spent;
}

static uint64_t b_clock(long n) {
    struct timespec t;
    uint64_t start = now_ns();
    for (long i = 0; i < n; i++) clock_gettime(CLOCK_MONOTONIC, &t);
    return now_ns() - start;
}

static const struct {
    const char *name;
    bench_fn run;
    long most; // operations in a batch: bounds memory for the faults
} benches[] = {
    {"getppid", b_getppid, 1000000},
    {"clock_gettime", b_clock, 1000000},
    {"stat", b_stat, 1000000},
    {"open_close", b_open_close, 1000000},
    {"pread_4k", b_pread_4k, 1000000},
    {"pipe_pingpong", b_pipe_pingpong, 100000},
    {"futex_threads", b_futex_threads, 100000},
    {"futex_processes", b_futex_processes, 100000},
    {"anon_fault", b_anon_fault, 4096},
    {"cow_fault", b_cow_fault, 4096},
    {"fork_exit", b_fork_exit, 10000},
    {"fork_exec", b_fork_exec, 10000},
    {"thread", b_thread, 10000},
    {"mmap_munmap", b_mmap_munmap, 100000},
    {"mprotect_pair", b_mprotect, 100000},
};
#define BENCHES (sizeof benches / sizeof benches[0])

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(size_t which, int rounds, uint64_t batch_ns) {
    bench_fn run = benches[which].run;
    double result[MAX_ROUNDS];
    long n = 8;
    // Warm-up: grow the batch until it fills its time.
    for (;;) {
        uint64_t spent = run(n);
        if (spent >= batch_ns || n >= benches[which].most) break;
        uint64_t per = spent / (uint64_t)n + 1;
        long want = (long)(batch_ns / per) + 1;
        n = want > n * 10 ? n * 10 : (want > n ? want : n + 1);
        if (n > benches[which].most) n = benches[which].most;
        if (want <= n && spent * 2 >= batch_ns) break;
    }
    for (int i = 0; i < rounds; i++) result[i] = (double)run(n) / (double)n;
    qsort(result, (size_t)rounds, sizeof result[0], compare);
    printf("%s %.1f %.1f\n", benches[which].name, result[0], result[rounds / 2]);
    fflush(stdout);
}

static void make_file(void) {
    static char path[64];
    char page[PAGE];
    // Read from the image where it has such a file, as programs do; made in /tmp otherwise.
    const char *candidates[] = {"/opt/nanovisor/data", NULL};
    for (int i = 0; candidates[i]; i++)
        if (access(candidates[i], R_OK) == 0) {
            file_path = candidates[i];
            return;
        }
    snprintf(path, sizeof path, "/tmp/nvbench.%d", (int)getpid());
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    if (fd < 0) die(path);
    memset(page, 'x', sizeof page);
    for (int i = 0; i < 16; i++)
        if (write(fd, page, sizeof page) != (ssize_t)sizeof page) die("write");
    close(fd);
    file_path = path;
}

static void remove_file(void) {
    if (strncmp(file_path, "/tmp/", 5) == 0) unlink(file_path);
}

int main(int argc, char **argv) {
    int rounds = 7, check = 0, named = 0;
    uint64_t batch_ns = 20000000;
    if (argc > 1 && strcmp(argv[1], "--true") == 0) return 0;
    static char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self_path = length > 0 ? self : argv[0];
    make_file();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) rounds = atoi(argv[++i]);
        else if (strcmp(argv[i], "--ms") == 0 && i + 1 < argc) batch_ns = strtoull(argv[++i], NULL, 10) * 1000000;
        else if (strcmp(argv[i], "--check") == 0) check = 1;
        else named = i;
    }
    if (rounds < 1 || rounds > MAX_ROUNDS) rounds = 7;
    int found = 0;
    for (size_t b = 0; b < BENCHES; b++) {
        int wanted = !named;
        for (int i = 1; i < argc; i++) wanted |= strcmp(argv[i], benches[b].name) == 0;
        if (!wanted) continue;
        found = 1;
        if (check) {
            benches[b].run(3);
            printf("%s ok\n", benches[b].name);
            fflush(stdout);
        } else {
            measure(b, rounds, batch_ns);
        }
    }
    remove_file();
    if (!found) {
        fprintf(stderr, "nvbench: no benchmark of that name\n");
        return 2;
    }
    return 0;
}
