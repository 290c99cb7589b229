// Files in memory and of the image, names, positions, descriptors.
#include "ckpt.h"
#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void show(const char *path)
{
    char buf[64] = {0};
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, 63);
    printf("%s: %s\n", path, n < 0 ? strerrorname_np(errno) : buf);
    if (fd >= 0) close(fd);
}

static int put(const char *path, const char *text)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0640);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) DIE(path);
    return fd;
}

int main(void)
{
    char buf[64] = {0};
    mkdir("/tmp/d", 0755);
    int a = put("/tmp/d/a", "content of a");
    lseek(a, 3, SEEK_SET);
    int dup_a = dup(a);
    int gone = put("/tmp/d/gone", "unlinked");
    unlink("/tmp/d/gone");
    link("/tmp/d/a", "/tmp/d/hard");
    symlink("a", "/tmp/d/soft");
    mkfifo("/tmp/d/fifo", 0600);
    chmod("/tmp/d/a", 04711);
    int append = open("/tmp/d/log", O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (write(append, "one ", 4) != 4) DIE("append");
    int sealed = memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    if (write(sealed, "memfd", 5) != 5) DIE("memfd");
    fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    unlink("/etc/passwd");
    int group = open("/etc/group", O_RDONLY);
    rename("/etc/hosts", "/etc/moved");
    int dir = open("/tmp/d", O_RDONLY | O_DIRECTORY);
    int place = open("/tmp/d/a", O_PATH);
    int null = open("/dev/null", O_WRONLY), zero = open("/dev/zero", O_RDONLY);
    int proc = open("/proc/self/status", O_RDONLY);
    if (read(proc, buf, 5) != 5) DIE("proc");
    int tmp = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    if (write(tmp, "no name", 7) != 7) DIE("O_TMPFILE");
    if (chdir("/tmp/d")) DIE("chdir");
    umask(027);
    ready();
    memset(buf, 0, sizeof buf);
    printf("read %zd: %s\n", read(a, buf, 4), buf);
    printf("shared position %ld\n", (long)lseek(dup_a, 0, SEEK_CUR));
    if (pread(gone, buf, 8, 0) != 8) DIE("gone");
    printf("unlinked file: %.8s\n", buf);
    struct stat st;
    SHOW("fstat", fstat(gone, &st));
    printf("links %d, mode %o\n", (int)st.st_nlink, st.st_mode & 07777);
    SHOW("stat", stat("a", &st));
    printf("links %d, mode %o, size %ld\n", (int)st.st_nlink, st.st_mode, (long)st.st_size);
    show("/tmp/d/hard");
    show("soft");
    if (write(append, "two", 3) != 3) DIE("append");
    show("log");
    SHOW("grow a sealed memfd", ftruncate(sealed, 100));
    SHOW("shrink it", ftruncate(sealed, 1));
    SHOW("seals", fcntl(sealed, F_GET_SEALS));
    SHOW("cloexec", fcntl(sealed, F_GETFD));
    show("/etc/passwd");
    TRY("stat moved", stat("/etc/moved", &st));
    SHOW("stat hosts", stat("/etc/hosts", &st));
    TRY("read group", read(group, buf, 4));
    SHOW("read a place", read(place, buf, 1));
    TRY("openat", openat(dir, "a", O_RDONLY));
    SHOW("null", write(null, buf, 8));
    SHOW("zero", read(zero, buf, 8));
    memset(buf, 0, sizeof buf);
    if (read(proc, buf, 1) != 1) DIE("proc");
    printf("status goes on: %s\n", buf[0] == '\t' ? "yes" : buf);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", tmp);
    SHOW("linkat", linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    show("named");
    int fresh = open("fresh", O_CREAT | O_WRONLY, 0666);
    fstat(fresh, &st);
    printf("umask: %o\n", st.st_mode & 0777);
    printf("cwd: %s\n", getcwd(path, sizeof path));
    struct dirent **names;
    int n = scandir(".", &names, 0, alphasort);
    for (int i = 0; i < n; i++) printf("%s ", names[i]->d_name);
    printf("\n");
    SHOW("rmdir", rmdir("/tmp/d"));
    return 0;
}
