// Names, links, permissions: errno for errno.
// volume: /tmp
#include "t.h"
#include <dirent.h>
#include <grp.h>
#include <limits.h>
#include <sys/sysmacros.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#define RENAME_WHITEOUT 4
#endif
static int rename2(const char *a, const char *b, unsigned f) { return syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, f); }

static void put(const char *path) { close(open(path, O_CREAT | O_WRONLY, 0644)); }
static long mode(const char *p) { struct stat st; return lstat(p, &st) ? -1 : (long)st.st_mode; }
static long gid(const char *p) { struct stat st; return lstat(p, &st) ? -1 : (long)st.st_gid; }
static long nlink(const char *p) { struct stat st; return lstat(p, &st) ? -1 : (long)st.st_nlink; }

int main(void) {
    char dir[] = "/tmp/errorsXXXXXX";
    if (!mkdtemp(dir) || chdir(dir)) DIE("mkdtemp");
    umask(022);
    char n255[256], n256[257], p4095[4096], p4096[4097];
    memset(n255, 'a', 255), n255[255] = 0, memset(n256, 'a', 256), n256[256] = 0;
    for (int i = 0; i < 4096; i += 2) memcpy(p4096 + i, "./", 2);
    p4096[4096] = 0, memcpy(p4095, p4096, 4095), p4095[4094] = 'x', p4095[4095] = 0;
    SHOW("255", mkdir(n255, 0755));
    SHOW("256", mkdir(n256, 0755));
    SHOW("path 4095", mkdir(p4095, 0755));
    SHOW("path 4096", mkdir(p4096, 0755));
    SHOW("open 256", open(n256, O_RDONLY));
    SHOW("empty mkdir", mkdir("", 0755));
    SHOW("empty open", open("", O_RDONLY));
    SHOW("mkdir .", mkdir(".", 0755));
    SHOW("mkdir /", mkdir("/", 0755));
    SHOW("mkdir missing/x", mkdir("missing/x", 0755));
    put("f");
    SHOW("mkdir f/x", mkdir("f/x", 0755));
    SHOW("open f/", open("f/", O_RDONLY));
    SHOW("creat new/", open("new/", O_CREAT | O_WRONLY, 0644));
    SHOW("creat f/", open("f/", O_CREAT | O_WRONLY, 0644));
    SHOW("mkdir d/", mkdir("d/", 0755));
    SHOW("creat d", open("d", O_CREAT, 0644));
    SHOW("creat d/.", open("d/.", O_CREAT, 0644));
    SHOW("open d for writing", open("d", O_WRONLY));
    SHOW("O_EXCL", open("f", O_CREAT | O_EXCL, 0644));
    SHOW("O_DIRECTORY f", open("f", O_DIRECTORY));
    SHOW("O_CREAT|O_DIRECTORY", open("q", O_CREAT | O_DIRECTORY, 0755));
    SHOW("rmdir f", rmdir("f"));
    SHOW("rmdir .", rmdir("."));
    SHOW("rmdir d/.", rmdir("d/."));
    SHOW("rmdir d/..", rmdir("d/.."));
    SHOW("rmdir /", rmdir("/"));
    SHOW("rmdir missing", rmdir("missing"));
    SHOW("unlink d", unlink("d"));
    SHOW("unlink f/", unlink("f/"));
    SHOW("unlink d/", unlink("d/"));
    SHOW("unlink .", unlink("."));
    SHOW("unlink ..", unlink(".."));
    SHOW("unlink missing", unlink("missing"));

    SHOW("loop a", symlink("b", "a"));
    SHOW("loop b", symlink("a", "b"));
    SHOW("open loop", open("a", O_RDONLY));
    SHOW("nofollow", open("a", O_RDONLY | O_NOFOLLOW));
    SHOW("path nofollow", open("a", O_PATH | O_NOFOLLOW) < 0 ? -1 : 0);
    SHOW("a/x", open("a/x", O_RDONLY));
    SHOW("dangling", symlink("nowhere", "dang"));
    SHOW("creat through dangling", open("dang", O_CREAT | O_WRONLY, 0644) < 0 ? -1 : 0);
    SHOW("made", access("nowhere", F_OK));
    SHOW("excl on dangling", open("dang", O_CREAT | O_EXCL, 0644));
    SHOW("mkdir on link", mkdir("dang", 0755));
    symlink("d", "ld");
    SHOW("mkdir ld/", mkdir("ld/", 0755));
    SHOW("rmdir ld", rmdir("ld"));
    SHOW("rmdir ld/", rmdir("ld/"));
    SHOW("unlink ld/", unlink("ld/"));
    SHOW("lstat ld/", mode("ld/"));
    SHOW("readlink ld/", readlink("ld/", n255, 10));
    SHOW("symlink empty", symlink("", "e"));
    SHOW("symlink exists", symlink("x", "f"));
    SHOW("readlink f", readlink("f", n255, 10));
    SHOW("readlink 0", readlink("a", n255, 0));
    char chain[20];
    for (int i = 0; i < 42; i++) {
        char to[20];
        snprintf(chain, sizeof chain, "c%d", i), snprintf(to, sizeof to, i ? "c%d" : "f", i - 1);
        symlink(to, chain);
    }
    SHOW("40 links", open("c39", O_RDONLY) < 0 ? -1 : 0);
    SHOW("41 links", open("c40", O_RDONLY));

    SHOW("link", link("f", "f2"));
    SHOW("nlink", nlink("f"));
    SHOW("link exists", link("f", "d"));
    SHOW("link dir", link("d", "d2"));
    SHOW("link missing", link("missing", "z"));
    SHOW("link to link", link("a", "a3"));
    SHOW("a3 is a link", (mode("a3") & S_IFMT) == S_IFLNK);
    SHOW("link f g/", link("f", "g/"));
    SHOW("xdev", link("f", "/dev/x"));

    SHOW("rename missing", rename("missing", "z"));
    SHOW("rename same inode", rename("f", "f2"));
    SHOW("still two", nlink("f"));
    SHOW("rename f d", rename("f", "d"));
    SHOW("rename d f", rename("d", "f"));
    mkdir("d/in", 0755), mkdir("full", 0755), put("full/x"), mkdir("e1", 0755);
    SHOW("into itself", rename("d", "d/in/x"));
    SHOW("over its parent", rename("d/in", "d"));
    SHOW("over full", rename("e1", "full"));
    SHOW("full over empty", rename("full", "e1"));
    SHOW("rename .", rename(".", "z"));
    SHOW("rename ..", rename("d/..", "z"));
    SHOW("rename to .", rename("d", "."));
    SHOW("rename f g/", rename("f", "g/"));
    SHOW("rename f/ g", rename("f/", "g"));
    SHOW("rename d/ g/", rename("d/", "g/"));
    SHOW("xdev rename", rename("f", "/dev/shm/f") == -1 ? -1 : 0);
    SHOW("noreplace", rename2("f2", "g", RENAME_NOREPLACE));
    SHOW("noreplace new", rename2("f2", "h", RENAME_NOREPLACE));
    SHOW("exchange", rename2("h", "g", RENAME_EXCHANGE));
    SHOW("h is dir", (mode("h") & S_IFMT) == S_IFDIR);
    SHOW("exchange missing", rename2("h", "missing", RENAME_EXCHANGE));
    SHOW("both", rename2("h", "g", RENAME_EXCHANGE | RENAME_NOREPLACE));
    SHOW("unknown", rename2("h", "g", 8));
    SHOW("nlink of dir", nlink("."));

    // set-gid directories, sticky ones, umask.
    mkdir("sg", 0755), chown("sg", 0, 77), chmod("sg", 02775);
    put("sg/f"), mkdir("sg/d", 0755);
    SHOW("inherits gid", gid("sg/f"));
    SHOW("inherits setgid", mode("sg/d"));
    umask(027);
    put("um"), mkdir("umd", 0777);
    SHOW("umask file", mode("um"));
    SHOW("umask dir", mode("umd"));
    SHOW("mknod fifo", mknod("ff", S_IFIFO | 0666, 0));
    SHOW("fifo mode", mode("ff"));
    SHOW("mknod dir", mknod("fd", S_IFDIR | 0666, 0));
    SHOW("mknod 0", mknod("f0", 0666, 0));
    SHOW("f0 mode", mode("f0"));
    SHOW("mknod bad", mknod("fb", 0170000, 0));
    umask(022);
    mkdir("st", 01777), chmod("st", 01777), put("st/root"), chmod(".", 0755);
    chmod("um", 04755);
    IN_CHILD("as nobody", {
        setgroups(0, 0), setgid(65534), setuid(65534);
        SHOW("unlink in sticky", unlink("st/root"));
        SHOW("rename in sticky", rename("st/root", "st/x"));
        put("st/mine");
        SHOW("own in sticky", unlink("st/mine"));
        SHOW("unlink", unlink("f"));
        SHOW("mkdir", mkdir("nb", 0755));
        SHOW("chmod", chmod("f", 0777));
        SHOW("chown", chown("f", 65534, -1));
        SHOW("utime now", utimensat(AT_FDCWD, "f", 0, 0));
        struct timespec ts[2] = {{1, 0}, {1, 0}};
        SHOW("utime set", utimensat(AT_FDCWD, "f", ts, 0));
        SHOW("open for write", open("f", O_WRONLY));
        SHOW("open trunc", open("f", O_RDONLY | O_TRUNC));
        SHOW("truncate", truncate("f", 0));
        SHOW("access", access("f", W_OK));
        SHOW("noatime", open("f", O_RDONLY | O_NOATIME));
        SHOW("mknod", mknod("st/dev", S_IFCHR | 0666, makedev(1, 3)));
        SHOW("chroot", chroot("."));
        int fd = open("st/own", O_CREAT | O_RDWR, 0600);
        SHOW("fchmod suid", fchmod(fd, 06755));
        SHOW("mode", mode("st/own"));
        SHOW("write", write(fd, "x", 1));
        SHOW("suid gone", mode("st/own"));
        SHOW("chown to self", fchown(fd, -1, 65534));
        SHOW("chown to root", fchown(fd, 0, -1));
        SHOW("chgrp foreign", fchown(fd, -1, 5));
    });
    mkdir("locked", 0700), put("locked/x");
    IN_CHILD("search", {
        setgroups(0, 0), setgid(65534), setuid(65534);
        SHOW("in locked", open("locked/x", O_RDONLY));
        SHOW("missing in locked", open("locked/none", O_RDONLY));
        SHOW("chdir", chdir("locked"));
        SHOW("opendir", open("locked", O_RDONLY));
        SHOW("stat itself", mode("locked"));
    });
    // A removed working directory.
    mkdir("gone", 0755);
    IN_CHILD("removed cwd", {
        chdir("gone"), rmdir("../gone");
        char b[100];
        SHOW("getcwd", syscall(SYS_getcwd, b, 100));
        SHOW("open .", open(".", O_RDONLY) < 0 ? -1 : 0);
        SHOW("create", open("x", O_CREAT | O_WRONLY, 0644));
        SHOW("mkdir", mkdir("x", 0755));
        SHOW("stat ..", mode("..") < 0 ? -1 : 0);
        SHOW("nlink .", nlink("."));
    });
    int d = open("e1", O_RDONLY | O_DIRECTORY);
    SHOW("openat file", openat(d, "x", O_RDONLY) < 0 ? -1 : 0);
    SHOW("openat up", openat(d, "../h", O_RDONLY) < 0 ? -1 : 0);
    int ff = open("um", O_RDONLY);
    SHOW("openat not dir", openat(ff, "x", O_RDONLY));
    SHOW("openat bad", openat(99, "x", O_RDONLY));
    SHOW("openat absolute bad", openat(99, "/", O_RDONLY) < 0 ? -1 : 0);
    SHOW("unlinkat flags", unlinkat(d, "x", 1));
    SHOW("fchdir file", fchdir(ff));
    SHOW("read dir", read(d, n255, 10));
    SHOW("getdents file", syscall(SYS_getdents64, ff, n255, 200));
    SHOW("ftruncate ro", ftruncate(ff, 0));
    SHOW("truncate dir", truncate("e1", 0));
    SHOW("truncate negative", truncate("um", -1));
    SHOW("lseek dir end", lseek(d, 0, SEEK_END) < 0 ? -1 : 0);
    SHOW("lseek bad whence", lseek(ff, 0, 9));
    SHOW("lseek negative", lseek(ff, -1, SEEK_SET));
    SHOW("fallocate ro", fallocate(ff, 0, 0, 10));
    SHOW("access bad mode", access("um", 16));
    SHOW("faccessat eaccess", faccessat(AT_FDCWD, "um", R_OK, AT_EACCESS));
    SHOW("fstatat flags", fstatat(AT_FDCWD, "um", &(struct stat){0}, 0x40000));
    SHOW("linkat flags", linkat(AT_FDCWD, "um", AT_FDCWD, "um2", 0x40000));
    SHOW("write O_PATH", write(open("um", O_PATH), "x", 1));
    SHOW("fchmod O_PATH", fchmod(open("um", O_PATH), 0600));
    SHOW("dup O_PATH", dup(open("um", O_PATH)) < 0 ? -1 : 0);
    int tf = open(".", O_TMPFILE | O_RDWR, 0600);
    SHOW("tmpfile", tf < 0 ? -1 : 0);
    char proc[40];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", tf);
    SHOW("name it", linkat(AT_FDCWD, proc, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    SHOW("named", nlink("named"));
    int tx = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", tx);
    SHOW("excl cannot be named", linkat(AT_FDCWD, proc, AT_FDCWD, "named2", AT_SYMLINK_FOLLOW));
    SHOW("tmpfile ro", open(".", O_TMPFILE | O_RDONLY, 0600));
    if (system("cd / && rm -rf /tmp/errors??????")) DIE("rm");
    END;
}
