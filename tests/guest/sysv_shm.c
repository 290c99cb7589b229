// System V shared memory: keys, sharing across fork, attachments, removal, permissions.
#include "t.h"
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

int main(void) {
    int id = shmget(IPC_PRIVATE, 10000, IPC_CREAT | 0600);
    CHECK("made", id >= 0);
    char *p = shmat(id, NULL, 0);
    CHECK("attached", p != (void *)-1);
    CHECK("zeros", p[0] == 0 && p[9999] == 0);
    strcpy(p, "hello");
    struct shmid_ds ds;
    SHOW("stat", shmctl(id, IPC_STAT, &ds));
    CHECK("size", ds.shm_segsz == 10000);
    CHECK("one attachment", ds.shm_nattch == 1);
    CHECK("made by us", ds.shm_cpid == getpid());
    CHECK("mode", (ds.shm_perm.mode & 0777) == 0600);
    IN_CHILD("child", {
        CHECK("inherited", !strcmp(p, "hello"));
        p[5000] = 'x';
        shmctl(id, IPC_STAT, &ds);
        CHECK("two attachments", ds.shm_nattch == 2);
        SHOW("child detaches", shmdt(p));
        shmctl(id, IPC_STAT, &ds);
        CHECK("one again", ds.shm_nattch == 1);
        SHOW("detach twice", shmdt(p));
    });
    CHECK("seen", p[5000] == 'x');
    char *ro = shmat(id, NULL, SHM_RDONLY);
    CHECK("read-only", ro != (void *)-1 && ro[5000] == 'x');
    SHOW("no write by mprotect", mprotect(ro, 4096, PROT_READ | PROT_WRITE));
    SHOW("detach read-only", shmdt(ro));
    SHOW("odd address", (long)shmat(id, (void *)((uintptr_t)p + 1), 0));
    SHOW("occupied address", (long)shmat(id, p, 0));
    CHECK("remap", shmat(id, p, SHM_REMAP) == p);
    CHECK("rounded", shmat(id, p + 100, SHM_REMAP | SHM_RND) == p);
    SHOW("detach elsewhere", shmdt(p + 4096));
    SHOW("remove", shmctl(id, IPC_RMID, NULL));
    CHECK("still there", !strcmp(p, "hello"));
    shmctl(id, IPC_STAT, &ds);
    CHECK("marked", ds.shm_perm.mode & SHM_DEST);
    SHOW("last detach", shmdt(p));
    SHOW("gone", shmctl(id, IPC_STAT, &ds));
    SHOW("attach gone", (long)shmat(id, NULL, 0));

    key_t key = 0x5eed0001;
    SHOW("no such key", shmget(key, 100, 0));
    int a = shmget(key, 4096, IPC_CREAT | 0644);
    CHECK("by key", a >= 0 && shmget(key, 100, 0) == a && shmget(key, 0, 0) == a);
    SHOW("exclusive", shmget(key, 100, IPC_CREAT | IPC_EXCL));
    SHOW("too large", shmget(key, 8192, 0));
    SHOW("zero", shmget(IPC_PRIVATE, 0, IPC_CREAT));
    SHOW("bad command", shmctl(a, 99, NULL));
    SHOW("bad id", shmctl(-1, IPC_STAT, &ds));
    IN_CHILD("another user", {
        if (setgid(1000) || setuid(1000)) DIE("setuid");
        SHOW("may not write", (long)shmat(a, NULL, 0));
        CHECK("may read", shmat(a, NULL, SHM_RDONLY) != (void *)-1);
        SHOW("may not remove", shmctl(a, IPC_RMID, NULL));
        SHOW("may not get for writing", shmget(key, 100, 0666));
        SHOW("may get for reading", shmget(key, 100, 0444) == a);
    });
    SHOW("remove", shmctl(a, IPC_RMID, NULL));
    SHOW("key is free", shmget(key, 100, 0));
    END;
}
