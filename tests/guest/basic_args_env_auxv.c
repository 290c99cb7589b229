// build: static dynamic static-pie
// args: one two=2 -x --long
// Arguments, environment and the auxiliary vector as a program finds them.
#include "t.h"
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>

extern char **environ;

int main(int argc, char **argv) {
    printf("argc %d\n", argc);
    for (int i = 0; i < argc; i++) printf("argv[%d] %s\n", i, argv[i]);
    CHECK("argv ends with NULL", argv[argc] == NULL);
    for (char **e = environ; *e; e++) printf("env %s\n", *e);
    CHECK("page size", getauxval(AT_PAGESZ) == 4096);
    CHECK("clock ticks", getauxval(AT_CLKTCK) == 100);
    CHECK("uid", getauxval(AT_UID) == getuid() && getauxval(AT_EUID) == geteuid());
    CHECK("gid", getauxval(AT_GID) == getgid() && getauxval(AT_EGID) == getegid());
    CHECK("not secure", getauxval(AT_SECURE) == 0);
    CHECK("program headers", getauxval(AT_PHDR) != 0 && getauxval(AT_PHENT) == sizeof(ElfW(Phdr)));
    CHECK("entry", getauxval(AT_ENTRY) != 0);
    CHECK("random", getauxval(AT_RANDOM) != 0);
    printf("execfn %s\n", (char *)getauxval(AT_EXECFN));
    printf("platform %s\n", (char *)getauxval(AT_PLATFORM));
    CHECK("vdso", getauxval(AT_SYSINFO_EHDR) != 0);
    unsigned char *elf = (unsigned char *)getauxval(AT_SYSINFO_EHDR);
    CHECK("vdso is ELF", elf && memcmp(elf, "\177ELF", 4) == 0);
    CHECK("stack aligned", ((uintptr_t)__builtin_frame_address(0) & 15) == 0);
    unsigned char *random = (unsigned char *)getauxval(AT_RANDOM);
    int nonzero = 0;
    for (int i = 0; i < 16; i++) nonzero |= random[i];
    CHECK("random bytes", nonzero);
    END;
}
