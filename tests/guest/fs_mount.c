// Mounting: tmpfs, bind, move, remount, busy mounts, namespaces, pivot_root.
#include "t.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

static void put(const char *path) { int f = open(path, O_CREAT | O_WRONLY, 0644); if (f < 0) printf("%s: %s\n", path, strerrorname_np(errno)); else close(f); }
static int there(const char *p) { return access(p, F_OK) == 0; }

int main(void) {
    if (unshare(CLONE_NEWNS)) DIE("unshare");
    if (mount(0, "/", 0, MS_REC | MS_PRIVATE, 0)) DIE("private");
    char dir[] = "/tmp/mountXXXXXX";
    if (!mkdtemp(dir) || chdir(dir)) DIE("mkdtemp");
    mkdir("a", 0755), mkdir("b", 0755), mkdir("c", 0755), put("file"), put("file2"), put("a/below");
    SHOW("tmpfs", mount("none", "a", "tmpfs", 0, "size=64k,mode=711"));
    SHOW("below is covered", there("a/below"));
    struct stat st;
    stat("a", &st);
    printf("mode %o\n", st.st_mode);
    struct statfs sf;
    statfs("a", &sf);
    printf("blocks %ld\n", (long)(sf.f_blocks * sf.f_bsize));
    put("a/x");
    int f = open("a/big", O_WRONLY | O_CREAT, 0644);
    char buf[40000] = {0};
    SHOW("first", write(f, buf, 40000));
    TRY("second", write(f, buf, 40000));
    SHOW("third", write(f, buf, 40000));
    SHOW("rename across", rename("a/x", "b/x"));
    SHOW("rmdir a mount point", rmdir("a"));
    SHOW("busy", umount2("a", 0));
    close(f);
    SHOW("no such type", mount("none", "b", "nosuchfs", 0, 0));
    SHOW("no type", mount("none", "b", 0, 0, 0));
    SHOW("missing", mount("none", "nope", "tmpfs", 0, 0));
    SHOW("bad option", mount("none", "b", "tmpfs", 0, "frob=1"));
    SHOW("on a file", mount("none", "file", "tmpfs", 0, 0));
    SHOW("bind", mount("a", "b", 0, MS_BIND, 0));
    SHOW("seen", there("b/x"));
    SHOW("bind file", mount("file", "file2", 0, MS_BIND, 0));
    SHOW("bind file on dir", mount("file", "c", 0, MS_BIND, 0));
    SHOW("bind missing", mount("nope", "c", 0, MS_BIND, 0));
    SHOW("remount ro", mount(0, "b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
    SHOW("write", open("b/y", O_CREAT | O_WRONLY, 0644));
    SHOW("mkdir", mkdir("b/y", 0755));
    SHOW("unlink", unlink("b/x"));
    SHOW("open rw", open("b/x", O_RDWR));
    SHOW("chmod", chmod("b/x", 0600));
    SHOW("still writable there", unlink("a/big"));
    SHOW("remount of no mount", mount(0, "c", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
    SHOW("move", mount("b", "c", 0, MS_MOVE, 0));
    SHOW("moved", there("c/x") && !there("b/x"));
    SHOW("move no mount", mount("b", "c", 0, MS_MOVE, 0));
    SHOW("umount", umount2("c", 0));
    SHOW("umount again", umount2("c", 0));
    SHOW("umount flags", umount2("a", 0x100));
    SHOW("umount missing", umount2("nope", 0));
    SHOW("stack", mount("none", "a", "tmpfs", 0, 0));
    SHOW("top is empty", there("a/x"));
    SHOW("pop", umount2("a", 0));
    SHOW("first again", there("a/x"));
    mkdir("a/sub", 0755);
    SHOW("inner", mount("none", "a/sub", "tmpfs", 0, 0));
    SHOW("outer is busy", umount2("a", 0));
    put("a/sub/in");
    SHOW("bind alone", mount("a", "b", 0, MS_BIND, 0));
    SHOW("inner not seen", there("b/sub/in"));
    umount2("b", 0);
    SHOW("rbind", mount("a", "b", 0, MS_BIND | MS_REC, 0));
    SHOW("inner seen", there("b/sub/in"));
    SHOW("lazy", umount2("b", MNT_DETACH));
    SHOW("nodev", mount("none", "b", "tmpfs", MS_NODEV | MS_NOEXEC, 0));
    mknod("b/null", S_IFCHR | 0666, 0x103);
    SHOW("open device", open("b/null", O_RDONLY));
    f = open("b/prog", O_CREAT | O_WRONLY, 0755), write(f, "#!/bin/sh\n", 10), close(f);
    char *args[] = {"prog", 0};
    SHOW("execute", execv("b/prog", args));
    SHOW("proc", mount("proc", "c", "proc", 0, 0));
    SHOW("self", there("c/self/stat"));
    IN_CHILD("namespace", {
        SHOW("unshare", unshare(CLONE_NEWNS));
        umount2("c", 0);
        SHOW("gone here", there("c/self"));
    });
    SHOW("still there", there("c/self"));
    IN_CHILD("unprivileged", {
        if (setuid(65534)) DIE("setuid");
        SHOW("mount", mount("none", "b", "tmpfs", 0, 0));
        SHOW("umount", umount2("c", 0));
        SHOW("pivot", syscall(SYS_pivot_root, ".", "."));
    });
    IN_CHILD("pivot", {
        unshare(CLONE_NEWNS);
        mkdir("root", 0755);
        mount("none", "root", "tmpfs", 0, 0);
        mkdir("root/old", 0755);
        put("root/marker");
        SHOW("not below", syscall(SYS_pivot_root, "root", "a"));
        SHOW("not a mount", syscall(SYS_pivot_root, "root/old", "root/old"));
        SHOW("pivot_root", syscall(SYS_pivot_root, "root", "root/old"));
        SHOW("chdir", chdir("/"));
        SHOW("marker", there("/marker"));
        SHOW("old", there("/old/proc"));
        SHOW("detach", umount2("/old", MNT_DETACH));
        SHOW("old", there("/old/proc"));
    });
    SHOW("outside", there("/proc/self"));
    IN_CHILD("chroot", {
        SHOW("chroot", chroot("a"));
        SHOW("outside cwd", access("../file", F_OK));
        SHOW("root", there("/x"));
        chdir("/");
        SHOW("no way up", there("../../../x"));
    });
    umount2("c", 0), umount2("b", 0), umount2("a/sub", 0), umount2("a", 0), umount2("file2", 0);
    if (chdir("/") || system("rm -rf /tmp/mount??????")) DIE("rm");
    END;
}
