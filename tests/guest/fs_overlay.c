// Changing what the image brings (/lower, made by the suite): copy-up, whiteouts, links, renames, listings.
#include "t.h"
#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static void listing(const char *path) {
    struct dirent **names;
    int n = scandir(path, &names, 0, alphasort);
    printf("%s:", path);
    if (n < 0) printf(" %s", strerrorname_np(errno));
    for (int i = 0; i < n; i++) printf(" %s%s", names[i]->d_name, names[i]->d_type == DT_DIR ? "/" : names[i]->d_type == DT_LNK ? "@" : names[i]->d_type == DT_REG ? "" : "?");
    printf("\n");
}

static void content(const char *path) {
    char buf[64] = {0};
    int f = open(path, O_RDONLY);
    ssize_t n = f < 0 ? -1 : read(f, buf, 20);
    printf("%s: ", path);
    if (n < 0) printf("%s\n", strerrorname_np(errno));
    else {
        struct stat st;
        fstat(f, &st);
        printf("%.*s (%ld bytes, mode %o, %ld links)\n", (int)strcspn(buf, "\n"), buf, (long)st.st_size, st.st_mode, (long)st.st_nlink);
    }
    if (f >= 0) close(f);
}

static void put(const char *path, const char *text, int flags) {
    int f = open(path, O_WRONLY | flags, 0644);
    if (f < 0 || write(f, text, strlen(text)) < 0) printf("%s: %s\n", path, strerrorname_np(errno));
    if (f >= 0) close(f);
}

static ino_t ino(const char *path) {
    struct stat st;
    return lstat(path, &st) ? 0 : st.st_ino;
}

int main(void) {
    if (chdir("/lower")) DIE("/lower");
    listing(".");
    listing("dir");
    content("file");
    ino_t before = ino("file");
    struct stat st, st2;
    int held = open("file", O_RDONLY);
    put("file", "X", 0);
    content("file");
    CHECK("the inode number stays over a copy-up", ino("file") == before);
    fstat(held, &st);
    stat("file", &st2);
    CHECK("the open file is still that file", st.st_ino == st2.st_ino);
    close(held);
    put("file", "appended", O_APPEND);
    content("file");
    SHOW("chmod", chmod("exec", 0700));
    content("exec");
    SHOW("truncate", truncate("big", 5000));
    SHOW("size", stat("big", &st) ? -1 : st.st_size);
    SHOW("extend", truncate("big", 9000));
    int f = open("big", O_RDONLY);
    char tail[4000], head[10];
    SHOW("read tail", pread(f, tail, sizeof tail, 5000));
    int zero = 1;
    for (int i = 0; i < 4000; i++) zero &= tail[i] == 0;
    CHECK("what was cut off is zero", zero);
    pread(f, head, 10, 0);
    printf("head %.10s\n", head);
    close(f);

    // Hard links of the image.
    content("hard1");
    SHOW("unlink one of two", unlink("hard1"));
    content("hard1");
    f = open("hard2", O_RDONLY);
    fstat(f, &st);
    close(f);
    SHOW("link to a file of the image", link("dir/a", "dir/a2"));
    put("dir/a2", "through the link", O_TRUNC);
    content("dir/a");
    SHOW("rename over a file of the image", rename("dir/a2", "dir/b"));
    listing("dir");
    content("dir/b");
    SHOW("unlink", unlink("dir/a"));
    SHOW("again", unlink("dir/a"));
    listing("dir");
    put("dir/a", "new", O_CREAT | O_EXCL);
    content("dir/a");
    SHOW("rmdir of a full one", rmdir("dir"));
    SHOW("rmdir of an empty one", rmdir("empty"));
    SHOW("mkdir of that name", mkdir("empty", 0711));
    listing("empty");

    // A directory emptied and made anew does not show what was below.
    SHOW("unlink x", unlink("dir/sub/x"));
    SHOW("rmdir sub", rmdir("dir/sub"));
    SHOW("mkdir sub", mkdir("dir/sub", 0755));
    listing("dir/sub");
    put("dir/sub/y", "y", O_CREAT);
    listing("dir/sub");

    // Symlinks.
    char buf[100] = {0};
    SHOW("readlink", readlink("link", buf, 99));
    printf("-> %s\n", buf);
    SHOW("rename link", rename("link", "moved-link"));
    content("moved-link");

    // Unlinked while open.
    f = open("victim", O_RDWR);
    SHOW("unlink open", unlink("victim"));
    fstat(f, &st);
    printf("nlink %ld size %ld\n", (long)st.st_nlink, (long)st.st_size);
    SHOW("write", pwrite(f, "zz", 2, 0));
    SHOW("read", pread(f, head, 4, 0));
    printf("%.4s\n", head);
    close(f);

    // Shared mapping over a copy-up through the mapping's own descriptor.
    f = open("map", O_RDWR);
    char *m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
    if (m == MAP_FAILED) DIE("mmap");
    m[0] = 'M';
    SHOW("pread", pread(f, head, 4, 0));
    printf("%.4s\n", head);
    pwrite(f, "W", 1, 1);
    printf("%c%c\n", m[0], m[1]);
    munmap(m, 4096);
    close(f);

    // Removing a large directory while it is listed.
    DIR *d = opendir("many");
    int seen = 0, gone = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        seen++;
        char name[300];
        snprintf(name, sizeof name, "many/%s", e->d_name);
        gone += unlink(name) == 0;
    }
    closedir(d);
    printf("seen %d removed %d\n", seen, gone);
    listing("many");
    for (int i = 0; i < 300; i++) {
        char name[40];
        snprintf(name, sizeof name, "many/n%d", i);
        put(name, "", O_CREAT);
    }
    d = opendir("many");
    seen = gone = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        seen++;
        char name[300];
        snprintf(name, sizeof name, "many/%s", e->d_name);
        gone += unlink(name) == 0;
    }
    closedir(d);
    printf("seen %d removed %d\n", seen, gone);
    SHOW("rmdir many", rmdir("many"));

    // Extended attributes survive a copy-up.
    char value[100];
    SHOW("setxattr", setxattr("file", "user.color", "blue", 4, 0));
    SHOW("getxattr size", getxattr("file", "user.color", 0, 0));
    SHOW("getxattr short", getxattr("file", "user.color", value, 2));
    SHOW("create again", setxattr("file", "user.color", "red", 3, XATTR_CREATE));
    SHOW("replace missing", setxattr("file", "user.size", "1", 1, XATTR_REPLACE));
    SHOW("listxattr", listxattr("file", value, sizeof value));
    SHOW("remove", removexattr("file", "user.color"));
    SHOW("remove again", removexattr("file", "user.color"));
    SHOW("no namespace", setxattr("file", "color", "1", 1, 0));
    SHOW("user on symlink", lsetxattr("moved-link", "user.x", "1", 1, 0));
    SHOW("trusted", setxattr("file", "trusted.x", "1", 1, 0));

    // The set-id bits.
    SHOW("suid", stat("suid", &st) ? -1 : (long)st.st_mode);
    SHOW("chown clears", chown("suid", 1, 1));
    SHOW("suid", stat("suid", &st) ? -1 : (long)st.st_mode);
    SHOW("tmp sticky", stat("sticky", &st) ? -1 : (long)st.st_mode);
    // A parent of a file copied up keeps its times and mode.
    stat("deep/er/est", &st);
    put("deep/er/est/file", "1", O_TRUNC);
    stat("deep/er/est", &st2);
    CHECK("directory's mtime stays", st.st_mtim.tv_sec == st2.st_mtim.tv_sec && st.st_mtim.tv_nsec == st2.st_mtim.tv_nsec);
    content("deep/er/est/file");
    listing(".");
    END;
}
