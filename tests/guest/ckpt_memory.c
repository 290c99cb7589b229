// Memory of every kind, registers, FPU state.
#include "ckpt.h"
#include <immintrin.h>
#include <sys/mman.h>

static int data = 41;
static char bss[100000];

int main(void)
{
    char *heap = malloc(3 << 20);
    memset(heap, 'h', 3 << 20);
    memset(bss, 'b', sizeof bss);
    char *private = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *shared = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    strcpy(private + 4096, "private");
    strcpy(shared + 8192, "shared");
    int fd = open("/tmp/mapped", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char page[8192];
    memset(page, 'f', sizeof page);
    if (write(fd, page, sizeof page) != sizeof page) DIE("write");
    char *file = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *copy = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    strcpy(file, "through the mapping");
    copy[4096] = 'c';
    char *guard = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *read_only = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(read_only, "read only");
    mprotect(read_only, 4096, PROT_READ);
    int to_child[2], to_parent[2];
    if (pipe(to_child) || pipe(to_parent)) DIE("pipe");
    pid_t child = fork();
    if (child == 0) {
        char c;
        if (read(to_child[0], &c, 1) != 1) _exit(1);
        strcpy(shared + 8192, "from the child");
        strcpy(private + 4096, "the child's own");
        if (write(to_parent[1], "x", 1) != 1) _exit(1);
        _exit(heap[12345] == 'h' ? 7 : 8);
    }
    until_asleep(child, child);
    double sums[4] = {1, 2, 3, 4};
    __m128d xmm = _mm_set_pd(1.25, 2.5);
    __asm__ volatile("movapd %0, %%xmm7" ::"x"(xmm) : "xmm7");
    ready();
    printf("data %d, heap %c%c, bss %c\n", ++data, heap[0], heap[(3 << 20) - 1], bss[99999]);
    printf("%s %s %s\n", private + 4096, shared + 8192, read_only);
    printf("zero pages %d %d\n", private[0], shared[1 << 19]);
    strcpy(private + 4096, "changed");
    char c = 'x';
    if (write(to_child[1], &c, 1) != 1 || read(to_parent[0], &c, 1) != 1) DIE("child");
    printf("%s, %s\n", shared + 8192, private + 4096);
    int status;
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    lseek(fd, 0, SEEK_SET);
    if (read(fd, page, 19) != 19) DIE("read");
    printf("%.19s %c %c\n", page, copy[4096], file[4096]);
    if (pwrite(fd, "WRITTEN", 7, 4096) != 7) DIE("pwrite");
    printf("%.7s %c %c\n", file + 4096, copy[4096], copy[4097]);
    file[1] = 'H';
    if (pread(fd, page, 3, 0) != 3) DIE("pread");
    printf("%.3s\n", page);
    IN_CHILD("guard page", *guard = 1);
    IN_CHILD("read-only page", *read_only = 1);
    char *more = realloc(heap, 6 << 20);
    printf("grown %c %d\n", more[(3 << 20) - 1], more != 0);
    SHOW("ftruncate", ftruncate(fd, 4096));
    IN_CHILD("past the end", file[4096] = 1);
    printf("sum %.1f\n", sums[0] + sums[1] + sums[2] + sums[3]);
    return 0;
}
