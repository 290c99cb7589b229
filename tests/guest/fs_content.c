// Content: holes, allocation, copies, sealed memory files, limits, times, positions in directories.
// volume: /dev/shm
#include "t.h"
#include <dirent.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#ifndef FALLOC_FL_KEEP_SIZE
#define FALLOC_FL_KEEP_SIZE 1
#define FALLOC_FL_PUNCH_HOLE 2
#define FALLOC_FL_ZERO_RANGE 16
#endif

static long size(int f) { struct stat st; return fstat(f, &st) ? -1 : (long)st.st_size; }
static volatile int got;
static void note(int s) { got = s; }

int main(void) {
    // A file system of its own, so that both sides are a tmpfs.
    if (chdir("/dev/shm")) DIE("/dev/shm");
    char buf[8192], zero[8192] = {0};
    int f = open("content", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW("far write", pwrite(f, "end", 3, 1 << 20));
    SHOW("size", size(f));
    SHOW("hole", pread(f, buf, 8192, 4096));
    CHECK("zeros", memcmp(buf, zero, 8192) == 0);
    SHOW("data", lseek(f, 0, SEEK_DATA));
    SHOW("hole at", lseek(f, 0, SEEK_HOLE));
    SHOW("hole behind", lseek(f, 1 << 20, SEEK_HOLE));
    SHOW("data past", lseek(f, 2 << 20, SEEK_DATA));
    SHOW("allocate", fallocate(f, 0, 0, 4096));
    SHOW("allocate past", fallocate(f, 0, 2 << 20, 4096));
    SHOW("size", size(f));
    SHOW("keep size", fallocate(f, FALLOC_FL_KEEP_SIZE, 3 << 20, 4096));
    SHOW("size", size(f));
    memset(buf, 'x', 8192), pwrite(f, buf, 8192, 0);
    SHOW("punch", fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 5000));
    pread(f, buf, 8192, 0);
    printf("%d %d %d %d\n", buf[99], buf[100], buf[5099], buf[5100]);
    SHOW("punch without keep", fallocate(f, FALLOC_FL_PUNCH_HOLE, 0, 4096));
    SHOW("zero length", fallocate(f, 0, 0, 0));
    SHOW("negative", fallocate(f, 0, -1, 5));
    SHOW("unknown mode", fallocate(f, 0x1000, 0, 5));
    SHOW("too big", fallocate(f, 0, 1, INT64_MAX));
    int pf[2];
    if (pipe(pf)) DIE("pipe");
    SHOW("pipe", fallocate(pf[1], 0, 0, 5));

    // Copies between files.
    SHOW("truncate", ftruncate(f, 0));
    SHOW("write", pwrite(f, "0123456789", 10, 0));
    int g = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
    off_t a = 2, b = 5;
    SHOW("copy_file_range", copy_file_range(f, &a, g, &b, 4, 0));
    printf("%ld %ld size %ld\n", (long)a, (long)b, size(g));
    SHOW("copy past the end", copy_file_range(f, &(off_t){50}, g, 0, 4, 0));
    SHOW("copy flags", copy_file_range(f, 0, g, 0, 4, 1));
    SHOW("copy overlapping", copy_file_range(f, &(off_t){0}, f, &(off_t){2}, 5, 0));
    int ap = open("copy", O_WRONLY | O_APPEND), ro = open("copy", O_RDONLY);
    SHOW("copy append", copy_file_range(f, &(off_t){0}, ap, 0, 4, 0));
    SHOW("copy read-only", copy_file_range(f, &(off_t){0}, ro, 0, 4, 0));
    SHOW("copy pipe", copy_file_range(f, &(off_t){0}, pf[1], 0, 4, 0));
    SHOW("sendfile", sendfile(g, f, &(off_t){1}, 100));
    SHOW("position", lseek(f, 0, SEEK_CUR));
    SHOW("sendfile moves", sendfile(g, f, 0, 3));
    SHOW("position", lseek(f, 0, SEEK_CUR));
    SHOW("sendfile append", sendfile(ap, f, 0, 3));
    struct iovec iov[2] = {{buf, 3}, {buf + 10, 3}};
    SHOW("preadv", preadv(f, iov, 2, 1));
    SHOW("append offset", (write(ap, "zz", 2), lseek(ap, 0, SEEK_CUR)));
    SHOW("pwrite append", pwrite(ap, "q", 1, 0));
    SHOW("size", size(ap));

    // Memory files and seals.
    int m = memfd_create("sealed", MFD_ALLOW_SEALING), plain = memfd_create("plain", 0);
    SHOW("seals", fcntl(m, F_GET_SEALS));
    SHOW("plain seals", fcntl(plain, F_GET_SEALS));
    SHOW("seal plain", fcntl(plain, F_ADD_SEALS, F_SEAL_GROW));
    SHOW("bad seal", fcntl(m, F_ADD_SEALS, 0x4000));
    SHOW("seals of a pipe", fcntl(pf[0], F_GET_SEALS));
    ftruncate(m, 4096);
    SHOW("seal grow and shrink", fcntl(m, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK));
    SHOW("grow", ftruncate(m, 8192));
    SHOW("shrink", ftruncate(m, 0));
    SHOW("write past", pwrite(m, "x", 1, 4096));
    SHOW("write within", pwrite(m, "x", 1, 5));
    void *map = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
    SHOW("seal write while mapped", fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
    munmap(map, 4096);
    SHOW("seal write", fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
    SHOW("write", pwrite(m, "x", 1, 5));
    CHECK("map shared writable", mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0) == MAP_FAILED && errno == EPERM);
    CHECK("map private writable", mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, m, 0) != MAP_FAILED);
    SHOW("seal seal", fcntl(m, F_ADD_SEALS, F_SEAL_SEAL));
    SHOW("no more", fcntl(m, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    char link[100] = {0}, path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", m);
    readlink(path, link, 99);
    printf("%s\n", link);
    int again = open(path, O_RDONLY);
    SHOW("open again", again < 0 ? -1 : 0);
    SHOW("not writable", fcntl(again, F_ADD_SEALS, 0));
    SHOW("long name", memfd_create("0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789", 0));
    SHOW("bad flags", memfd_create("x", 0x4000));

    // The limit on file sizes.
    signal(SIGXFSZ, note);
    struct rlimit rl = {1000, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &rl);
    int l = open("limit", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW("up to the limit", pwrite(l, zero, 3000, 500));
    SHOW("at the limit", pwrite(l, zero, 1, 1000));
    printf("signal %d\n", got == SIGXFSZ);
    got = 0;
    SHOW("truncate", ftruncate(l, 1001));
    printf("signal %d\n", got == SIGXFSZ);
    SHOW("truncate to it", ftruncate(l, 1000));
    SHOW("allocate", fallocate(l, 0, 0, 2000));
    rl.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_FSIZE, &rl);

    // Times.
    struct timespec ts[2] = {{100, 5}, {200, 7}};
    SHOW("futimens", futimens(f, ts));
    struct stat st;
    fstat(f, &st);
    printf("%ld.%ld %ld.%ld\n", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    ts[0].tv_nsec = UTIME_OMIT, ts[1].tv_nsec = 1000000000;
    SHOW("bad nsec", futimens(f, ts));
    ts[1] = (struct timespec){-5, 3};
    SHOW("before 1970", futimens(f, ts));
    fstat(f, &st);
    printf("%ld %ld.%ld\n", (long)st.st_atim.tv_sec, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);

    struct statx sx;
    SHOW("statx", statx(AT_FDCWD, "content", 0, STATX_BASIC_STATS, &sx));
    printf("mask %d size %d\n", (sx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS, (int)sx.stx_size);
    SHOW("statx reserved", statx(AT_FDCWD, "content", 0, 0x80000000u, &sx));
    SHOW("statx empty", statx(f, "", AT_EMPTY_PATH, STATX_SIZE, &sx));
    struct statfs sf;
    SHOW("statfs", statfs(".", &sf));
    printf("bsize %ld namelen %ld\n", (long)sf.f_bsize, (long)sf.f_namelen);
    statfs("/proc", &sf);
    printf("type %lx\n", (long)sf.f_type);

    // Positions in a directory.
    mkdir("dir", 0755);
    for (int i = 0; i < 50; i++) {
        char name[20];
        snprintf(name, sizeof name, "dir/%02d", i);
        close(open(name, O_CREAT, 0644));
    }
    DIR *d = opendir("dir");
    for (int i = 0; i < 20; i++) readdir(d);
    long at = telldir(d);
    char next[300];
    strcpy(next, readdir(d)->d_name);
    for (int i = 0; i < 10; i++) readdir(d);
    seekdir(d, at);
    CHECK("seekdir", strcmp(readdir(d)->d_name, next) == 0);
    rewinddir(d);
    int n = 0;
    while (readdir(d)) n++;
    printf("entries %d\n", n);
    closedir(d);
    if (system("rm -rf /dev/shm/*")) DIE("rm");
    END;
}
