// build: static
// Odd and broken programs: what execve(2) says of them, or how they end (fs/binfmt_elf.c).
#include "t.h"
#include <elf.h>
#include <stddef.h>
#include <sys/stat.h>

static struct {
    Elf64_Ehdr e;
    Elf64_Phdr p[4];
    char interp[64];
    unsigned char code[64];
} f;

// The code at `at` of the file: exit(7).
static const unsigned char EXIT7[] = {0xb8, 60, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x0f, 0x05};
static unsigned long base = 0x10000;

static Elf64_Phdr load(unsigned long vaddr, unsigned long offset, unsigned long filesz, unsigned long memsz, int flags) {
    return (Elf64_Phdr){PT_LOAD, flags, offset, vaddr, vaddr, filesz, memsz, 0x1000};
}

// A program of one segment that exits with 7.
static void good(void) {
    memset(&f, 0, sizeof f);
    memcpy(f.e.e_ident, ELFMAG, SELFMAG);
    f.e.e_ident[EI_CLASS] = ELFCLASS64, f.e.e_ident[EI_DATA] = ELFDATA2LSB, f.e.e_ident[EI_VERSION] = 1;
    f.e.e_type = ET_EXEC, f.e.e_machine = EM_X86_64, f.e.e_version = 1;
    f.e.e_phoff = offsetof(__typeof__(f), p), f.e.e_phentsize = sizeof *f.p, f.e.e_phnum = 1, f.e.e_ehsize = sizeof f.e;
    f.p[0] = load(base, 0, sizeof f, sizeof f, PF_R | PF_X);
    memcpy(f.code, EXIT7, sizeof EXIT7);
    f.e.e_entry = base + offsetof(__typeof__(f), code);
}

static void with_interp(const char *name, size_t len) {
    f.p[1] = f.p[0], f.e.e_phnum = 2;
    memset(f.interp, 'x', sizeof f.interp);
    memcpy(f.interp, name, len < sizeof f.interp ? len : sizeof f.interp);
    f.p[0] = (Elf64_Phdr){PT_INTERP, PF_R, offsetof(__typeof__(f), interp), 0, 0, len, len, 1};
}

static void save(const char *path, size_t len) {
    unlink(path);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0755);
    if (fd < 0 || write(fd, &f, len) != (ssize_t)len) DIE(path);
    close(fd);
}

static void try_at(const char *name, const char *path) {
    fflush(stdout);
    int p[2], err = 0, st = 0;
    if (pipe2(p, O_CLOEXEC) != 0) DIE("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        execl(path, path, NULL);
        err = errno;
        if (write(p[1], &err, sizeof err) < 0) _exit(98);
        _exit(99);
    }
    close(p[1]);
    if (read(p[0], &err, sizeof err) == sizeof err) printf("%s -> %s", name, strerrorname_np(err));
    else printf("%s -> runs", name);
    close(p[0]);
    waitpid(pid, &st, 0);
    if (WIFSIGNALED(st)) printf(", killed by %d\n", WTERMSIG(st));
    else if (WEXITSTATUS(st) == 99) printf("\n");
    else printf(", exits with %d\n", WEXITSTATUS(st));
}

static void go_len(const char *name, size_t len) {
    save("/tmp/elf", len);
    try_at(name, "/tmp/elf");
}
static void go(const char *name) { go_len(name, sizeof f); }

static void headers(void) {
    good(), go("good");
    good(), go_len("empty", 0);
    good(), go_len("one byte", 1);
    good(), go_len("half a header", 32);
    good(), go_len("no program headers", sizeof f.e);
    good(), go_len("half of one", sizeof f.e + 20);
    good(), f.e.e_phentsize = 0, go("phentsize 0");
    good(), f.e.e_phentsize = 57, go("phentsize 57");
    good(), f.e.e_phnum = 0, go("phnum 0");
    good(), f.e.e_phnum = 0xffff, go("phnum 0xffff");
    good(), f.e.e_phnum = 1170, go("phnum past the file");
    good(), f.e.e_phnum = 1171, go("phnum over 64 KiB");
    good(), f.e.e_phoff = sizeof f, go("phoff at the end");
    good(), f.e.e_phoff = -1ul, go("phoff -1");
    good(), f.e.e_phoff = 1ul << 63, go("phoff huge");
    good(), f.e.e_phoff += 1, go("phoff odd");
    good(), f.e.e_type = ET_REL, go("ET_REL");
    good(), f.e.e_type = ET_CORE, go("ET_CORE");
    good(), f.e.e_machine = EM_AARCH64, go("foreign");
    good(), f.e.e_ident[EI_DATA] = ELFDATA2MSB, go("big-endian by its word");
    good(), f.e.e_ident[EI_VERSION] = 9, f.e.e_version = 9, go("version 9");
    good(), f.e.e_ident[0] = 'E', go("no magic");
    good(), f.e.e_shoff = -1ul, f.e.e_shnum = 0xffff, go("sections nonsense");
}

static void segments(void) {
    unsigned long n = sizeof f;
    good(), f.p[0].p_type = PT_NOTE, go("nothing to load");
    good(), f.p[0].p_align = 0, go("align 0");
    good(), f.p[0].p_align = 3, go("align 3");
    good(), f.p[0].p_align = -1ul, go("align -1");
    good(), f.p[0].p_align = 1ul << 63, go("align 2^63");
    good(), f.p[0].p_filesz = n + 1, go("filesz over memsz");
    good(), f.p[0].p_memsz = 1ul << 40, go("memsz 1 TiB, not writable");
    good(), f.p[0].p_memsz = 1ul << 62, go("memsz huge");
    good(), f.p[0].p_memsz = -1ul, go("memsz -1");
    good(), f.p[0].p_memsz = f.p[0].p_filesz = -1ul, go("both -1");
    good(), f.p[0].p_filesz = f.p[0].p_memsz = 1 << 20, go("longer than the file");
    good(), f.p[0].p_filesz = f.p[0].p_memsz = 1ul << 46, go("much longer than the file");
    good(), f.p[0].p_offset = 1ul << 62, go("offset huge");
    good(), f.p[0].p_offset = 8, go("offset not like the address");
    good(), f.p[0].p_offset = 1 << 20, go("offset past the file");
    good(), f.p[0].p_vaddr = 0x7ffffffff000, go("at the end of user space");
    good(), f.p[0].p_vaddr = 0x7fffffffe000, go("at the last page but one");
    good(), f.p[0].p_vaddr = 0x800000000000, go("past user space");
    good(), f.p[0].p_vaddr = -4096ul, go("at -4096");
    good(), f.p[0].p_flags = 0, go("no access");
    good(), f.p[0].p_flags = PF_R, go("not executable");
    good(), f.p[0].p_flags = PF_X, go("executable alone");
    good(), f.e.e_entry = 0, go("entry 0");
    good(), f.e.e_entry = -1ul, go("entry -1");
    good(), f.e.e_entry = 0xffff800000000000, go("entry in the kernel");
    good(), f.p[1] = f.p[0], f.e.e_phnum = 2, go("twice the same");
    good(), f.p[1] = load(base + 0x1000, 0, n, n, PF_R), f.e.e_phnum = 2, go("two");
    good(), f.p[1] = f.p[0], f.p[0] = load(base + 0x1000, 0, n, n, PF_R), f.e.e_phnum = 2, go("in falling order");
    good(), f.p[1] = load(base, 0, 0, 0x3000, PF_R | PF_W), f.e.e_phnum = 2, go("zeros over the program");
    good(), f.p[1] = load(base + 0x5000, 0, 0, 0, PF_R), f.e.e_phnum = 2, go("an empty one");
    good(), f.p[0].p_memsz = 0x4000, f.p[1] = load(base + 0x2000, 0, n, n, PF_R | PF_X), f.e.e_phnum = 2, go("one over another's zeros");
    good(), f.p[0].p_flags |= PF_W, f.p[0].p_memsz = 1ul << 46, go("1/2 of user space of zeros");
    good(), f.p[1] = load(1ul << 46, 0, n, n, PF_R), f.e.e_phnum = 2, go("far apart");
    good(), f.p[0].p_vaddr += 0x10, f.p[0].p_offset = 0x10, f.p[0].p_filesz = f.p[0].p_memsz = n - 0x10, go("from within a page");
    good(), f.e.e_type = ET_DYN, f.p[0].p_vaddr = 0, f.e.e_entry -= base, go("position-independent");
    good(), f.e.e_type = ET_DYN, f.p[0].p_vaddr = 0, f.p[0].p_align = 1 << 21, f.e.e_entry -= base, go("aligned to 2 MiB");
    good(), f.e.e_type = ET_DYN, f.p[0].p_vaddr = 0, f.p[0].p_align = 1ul << 46, f.e.e_entry -= base, go("aligned to 64 TiB");
    good(), f.e.e_type = ET_DYN, f.p[0].p_vaddr = 0x7fffffffe000, go("position-independent, at the end");
    good(), f.e.e_type = ET_DYN, f.p[0].p_vaddr = 0x5000, f.e.e_entry += 0x5000 - base, go("position-independent, not from 0");
}

static void interpreters(void) {
    good(), save("/tmp/ld", sizeof f);
    good(), with_interp("/tmp/ld", 8), f.e.e_entry = 0, go("an interpreter");
    good(), with_interp("/tmp/ld", 7), go("its name not ended");
    good(), with_interp("", 1), go("no name");
    good(), with_interp("", 0), go("length 0");
    good(), with_interp("/tmp/ld", 4097), go("length 4097");
    good(), with_interp("/tmp/ld", 4096), go("length past the file");
    good(), with_interp("/tmp/ld\0junk", 12), go("junk behind its end");
    good(), with_interp("/nonexistent", 13), go("one that is not there");
    good(), with_interp("/tmp", 5), go("a folder");
    good(), with_interp("/dev/null", 10), go("a device");
    good(), with_interp("/proc/self/status", 18), go("of proc");
    good(), with_interp("/tmp/elf", 9), go("itself");
    good(), with_interp("tmp/ld", 7), (void)!chdir("/"), go("a relative name");
    good(), with_interp("/tmp/ld", 8), f.p[0].p_offset = -1ul, go("name at -1");
    good(), with_interp("/tmp/ld", 8), f.p[2] = f.p[0], f.p[2].p_offset = 0, f.e.e_phnum = 3, go("two interpreters");
    // Dynamic itself, with an interpreter of its own that nobody asks.
    good(), with_interp("/nonexistent", 13), f.e.e_type = ET_DYN, f.p[1].p_vaddr = 0, f.e.e_entry -= base;
    save("/tmp/ld", sizeof f);
    good(), with_interp("/tmp/ld", 8), f.e.e_entry = 0, go("one that is dynamic itself");
    good(), save("/tmp/ld", 0);
    good(), with_interp("/tmp/ld", 8), go("an empty one");
    good(), save("/tmp/ld", 40);
    good(), with_interp("/tmp/ld", 8), go("one of 40 bytes");
    good(), save("/tmp/ld", sizeof f.e + 10);
    good(), with_interp("/tmp/ld", 8), go("one without its table");
    good(), f.e.e_machine = EM_AARCH64, save("/tmp/ld", sizeof f);
    good(), with_interp("/tmp/ld", 8), go("a foreign one");
    good(), f.e.e_phnum = 0xffff, save("/tmp/ld", sizeof f);
    good(), with_interp("/tmp/ld", 8), go("one with 0xffff headers");
    good(), f.p[0].p_memsz = -1ul, save("/tmp/ld", sizeof f);
    good(), with_interp("/tmp/ld", 8), go("one that does not fit");
    good(), f.p[0].p_type = PT_NOTE, save("/tmp/ld", sizeof f);
    good(), with_interp("/tmp/ld", 8), go("one with nothing to load");
    good(), memcpy(&f, "#!/bin/sh\n", 10), save("/tmp/ld", 10);
    good(), with_interp("/tmp/ld", 8), go("a script");
    good(), save("/tmp/ld", sizeof f), chmod("/tmp/ld", 0644);
    good(), with_interp("/tmp/ld", 8), go("one that may not be executed");
}

int main(void) {
    headers();
    segments();
    interpreters();
    unlink("/tmp/elf"), unlink("/tmp/ld");
    return t_failed;
}
