// Every exception that a program can raise, as the signal that Linux makes of it: number, code, trap number, where.
#include "t.h"
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/ucontext.h>

static sigjmp_buf back;
static volatile uintptr_t marker;
static char *page;

static void handler(int sig, siginfo_t *si, void *context) {
    // The alignment check would go on in here.
    __asm__ volatile("pushfq; andl $~0x40000, (%rsp); popfq");
    ucontext_t *uc = context;
    greg_t *regs = uc->uc_mcontext.gregs;
    long rip = (long)(regs[REG_RIP] - (greg_t)marker);
    // The present bit of a page fault depends on what was touched before, and not every platform learns other codes.
    long err = regs[REG_TRAPNO] == 14 ? regs[REG_ERR] & ~1 : 0;
    const char *at = si->si_addr == (void *)regs[REG_RIP] ? "rip" : si->si_addr == 0 ? "0"
                     : (char *)si->si_addr >= page && (char *)si->si_addr < page + 8192 ? "page" : "other";
    printf("  %s code %d trap %d err %lx addr %s", sigabbrev_np(sig), si->si_code, (int)regs[REG_TRAPNO], err, at);
    if (rip >= -16 && rip < 64) printf(" rip %+ld", rip);
    printf("\n");
    fflush(stdout);
    siglongjmp(back, 1);
}

// Runs `code` (copied to an executable page, `rdi` and `rsi` as given) until it traps.
static void run(const char *name, const void *code, size_t len, uintptr_t rdi, uintptr_t rsi) {
    static char *text;
    if (!text) text = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(text, 0x90, 256);
    memcpy(text, code, len);
    text[len] = (char)0xc3;
    marker = (uintptr_t)text;
    printf("%s\n", name);
    fflush(stdout);
    if (sigsetjmp(back, 1) == 0) {
        ((void (*)(uintptr_t, uintptr_t))text)(rdi, rsi);
        printf("  nothing\n");
        fflush(stdout);
    }
}

#define RUN(name, ...)                                                           \
    do {                                                                         \
        static const unsigned char code[] = {__VA_ARGS__};                       \
        run(name, code, sizeof code, (uintptr_t)page, 0);                        \
    } while (0)
#define RUN2(name, rdi, rsi, ...)                                                \
    do {                                                                         \
        static const unsigned char code[] = {__VA_ARGS__};                       \
        run(name, code, sizeof code, (uintptr_t)(rdi), (uintptr_t)(rsi));        \
    } while (0)

int main(void) {
    static char stack[65536];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alt, 0);
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (unsigned i = 0; i < 5; i++) sigaction(all[i], &sa, 0);
    page = mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t odd = 0x800000000000, high = 0xffff800000000000;

    RUN("divide by zero", 0x31, 0xc9, 0xf7, 0xf1);
    RUN("divide overflow", 0xb8, 0, 0, 0, 0x80, 0x99, 0xb9, 0xff, 0xff, 0xff, 0xff, 0xf7, 0xf9);
    RUN("icebp", 0x90, 0xf1);
    RUN("int3", 0x90, 0xcc);
    RUN("int 3", 0x90, 0xcd, 0x03);
    RUN("int 5", 0x90, 0xcd, 0x05);
    RUN("int 0x0d", 0x90, 0xcd, 0x0d);
    RUN("int 0x20", 0x90, 0xcd, 0x20);
    RUN("int 0xff", 0x90, 0xcd, 0xff);
    RUN("into, not in 64-bit mode", 0x90, 0xce);
    RUN("bound, not in 64-bit mode", 0x90, 0x62, 0x07, 0x00);
    RUN("ud2", 0x90, 0x0f, 0x0b);
    RUN("ud0", 0x90, 0x0f, 0xff, 0xc0);
    RUN("ud1", 0x90, 0x0f, 0xb9, 0xc0);
    RUN("lock nop", 0xf0, 0x90);
    RUN("hlt", 0x90, 0xf4);
    RUN("sti", 0x90, 0xfb);
    RUN("cr0", 0x90, 0x0f, 0x20, 0xc0);
    RUN("dr7", 0x90, 0x0f, 0x21, 0xf8);
    RUN("lgdt", 0x90, 0x0f, 0x01, 0x17);
    RUN("ltr", 0x31, 0xc0, 0x0f, 0x00, 0xd8);
    RUN("lldt", 0x31, 0xc0, 0x0f, 0x00, 0xd0);
    RUN("clts", 0x90, 0x0f, 0x06);
    RUN("invd", 0x90, 0x0f, 0x08);
    RUN("wbinvd", 0x90, 0x0f, 0x09);
    RUN("invlpg", 0x90, 0x0f, 0x01, 0x3f);
    RUN("swapgs", 0x90, 0x0f, 0x01, 0xf8);
    RUN("rdmsr", 0x31, 0xc9, 0x0f, 0x32);
    RUN("wrmsr", 0x31, 0xc9, 0x0f, 0x30);
    RUN("rdpmc", 0x31, 0xc9, 0x0f, 0x33);
    RUN("xsetbv", 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xc0, 0x0f, 0x01, 0xd1);
    RUN("sysret", 0x90, 0x48, 0x0f, 0x07);
    RUN("sysexit", 0x90, 0x0f, 0x35);
    RUN("in al, dx", 0x66, 0xba, 0x80, 0x00, 0xec);
    RUN("out dx, al", 0x66, 0xba, 0x80, 0x00, 0xee);
    RUN("in al, 0xf4", 0x90, 0xe4, 0xf4);
    RUN("out 0xf4, al", 0x90, 0xe6, 0xf4);
    RUN("insb", 0x66, 0xba, 0x80, 0x00, 0x6c);
    RUN("outsb", 0x66, 0xba, 0x80, 0x00, 0x6e);
    // Segments: null is fine, others are refused; there is no local table.
    RUN("null into ds", 0x31, 0xc0, 0x8e, 0xd8);
    RUN("user data into ds", 0xb8, 0x2b, 0, 0, 0, 0x8e, 0xd8, 0x31, 0xc0, 0x8e, 0xd8);
    RUN("kernel data into ds", 0xb8, 0x18, 0, 0, 0, 0x8e, 0xd8);
    RUN("local table into es", 0xb8, 0x07, 0, 0, 0, 0x8e, 0xc0);
    RUN("beyond the table into es", 0xb8, 0xfb, 0xff, 0, 0, 0x8e, 0xc0);
    RUN("null into ss", 0x31, 0xc0, 0x8e, 0xd0);
    RUN("cs into ss", 0xb8, 0x33, 0, 0, 0, 0x8e, 0xd0);
    RUN("far return to ring 0", 0x6a, 0x10, 0x6a, 0x00, 0x48, 0xcb);
    RUN("iret to ring 0", 0x6a, 0x18, 0x6a, 0x00, 0x9c, 0x6a, 0x10, 0x6a, 0x00, 0x48, 0xcf);
    // Memory.
    RUN2("load from 0", 0, 0, 0x8b, 0x07);
    RUN2("store to 0", 0, 0, 0x89, 0x07);
    RUN2("store to a read-only page", page + 16, 0, 0x89, 0x07);
    RUN2("load from no address", odd, 0, 0x8b, 0x07);
    RUN2("load from the upper half", high, 0, 0x8b, 0x07);
    RUN2("store to the upper half", high, 0, 0x89, 0x07);
    RUN2("jump to 0", 0, 0, 0xff, 0xe7);
    RUN2("jump to data", page, 0, 0xff, 0xe7);
    RUN2("jump to no address", odd, 0, 0xff, 0xe7);
    RUN2("push to no address", odd, 0, 0x48, 0x89, 0xfc, 0x50);
    RUN2("load by rbp from no address", odd, 0, 0x48, 0x89, 0xfd, 0x8b, 0x45, 0x00);
    RUN2("push to 0", 0, 0, 0x48, 0x89, 0xfc, 0x50);
    // pushf; or [rsp], AC; popf; mov eax, [rdi + 1]
    RUN2("unaligned with AC", page, 0, 0x9c, 0x81, 0x0c, 0x24, 0, 0, 4, 0, 0x9d, 0x8b, 0x47, 0x01);
    RUN("unaligned movaps", 0x0f, 0x28, 0x47, 0x01);
    // pushf; or [rsp], TF; popf; nop
    RUN("trap flag", 0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90);
    RUN("x87 divide", 0x6a, 0x00, 0xd9, 0x2c, 0x24, 0x58, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b);
    RUN("x87 invalid", 0xdb, 0xe3, 0x6a, 0x00, 0xd9, 0x2c, 0x24, 0x58, 0xd9, 0xee, 0xd9, 0xee, 0xde, 0xf9, 0x9b);
    RUN("SIMD divide", 0x6a, 0x00, 0x0f, 0xae, 0x14, 0x24, 0x58, 0x0f, 0x57, 0xc9, 0xb8, 1, 0, 0, 0, 0xf3, 0x0f, 0x2a, 0xc0,
        0xf3, 0x0f, 0x5e, 0xc1);
    RUN("SIMD invalid", 0x6a, 0x00, 0x0f, 0xae, 0x14, 0x24, 0x58, 0x0f, 0x57, 0xc0, 0x0f, 0x5e, 0xc0);
    RUN("harmless: cpuid", 0x53, 0x31, 0xc0, 0x0f, 0xa2, 0x5b);
    RUN("harmless: rdtscp", 0x0f, 0x01, 0xf9);
    END;
}
