// build: static
// flags: -pthread
// limit: 90
// alone: yes
// chaos: no
// Random system calls with random and half-sensible arguments from many processes and threads: whatever they do to
// themselves, the kernel must live. Only inside a sandbox: natively it prints what a survivor prints.
// Arguments: [SECONDS [SEED]]; NANOVISOR_SEED is not read, so that a run repeats.
#include "t.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

// Signatures: f descriptor, p path, s string, b buffer (its content random), B buffer of structures that hold
// pointers, n size, i small number, l flags, o offset, a address of a mapping, w anything, t timespec, P pid, S signal.
static const struct { short nr; const char *args; } SIG[] = {
    {0, "fbn"}, {1, "fbn"}, {2, "pli"}, {3, "f"}, {4, "pb"}, {5, "fb"}, {6, "pb"}, {7, "BiI"}, {8, "foi"},
    {9, "anllfo"}, {10, "ani"}, {11, "an"}, {12, "a"}, {13, "SBBE"}, {14, "ibbE"}, {15, ""}, {16, "fwb"}, {17, "fbno"},
    {18, "fbno"}, {19, "fBi"}, {20, "fBi"}, {21, "pi"}, {22, "b"}, {23, "ibbbt"}, {24, ""}, {25, "annla"}, {26, "ani"},
    {27, "anb"}, {28, "ani"}, {29, "inl"}, {30, "iai"}, {31, "iib"}, {32, "f"}, {33, "ff"}, {35, "tb"}, {36, "ib"},
    {37, "i"}, {38, "ibb"}, {39, ""}, {40, "ffbn"}, {41, "iii"}, {42, "fbn"}, {43, "fbb"}, {44, "fbnlbn"},
    {45, "fbnlbb"}, {46, "fBl"}, {47, "fBl"}, {48, "fi"}, {49, "fbn"}, {50, "fi"}, {51, "fbb"}, {52, "fbb"},
    {53, "iiib"}, {54, "fiibn"}, {55, "fiibb"}, {56, "l0bbw"}, {57, ""}, {58, ""}, {59, "pBB"}, {61, "PbIb"},
    {62, "PS"}, {63, "b"}, {64, "iin"}, {65, "iBi"}, {66, "iib"}, {67, "a"}, {68, "ii"}, {69, "iBni"}, {70, "ibniI"},
    {71, "iib"}, {72, "fiB"}, {73, "fi"}, {74, "f"}, {75, "f"}, {76, "po"}, {77, "fo"}, {78, "fbn"}, {79, "bn"},
    {80, "p"}, {81, "f"}, {82, "pp"}, {83, "pi"}, {84, "p"}, {85, "pi"}, {86, "pp"}, {87, "p"}, {88, "pp"},
    {89, "pbn"}, {90, "pi"}, {91, "fi"}, {92, "pii"}, {93, "fii"}, {94, "pii"}, {95, "i"}, {96, "bb"}, {97, "ib"},
    {98, "ib"}, {99, "b"}, {100, "b"}, {101, "iPaw"}, {102, ""}, {103, "ibn"}, {104, ""}, {105, "i"}, {106, "i"},
    {107, ""}, {108, ""}, {109, "PP"}, {110, ""}, {111, ""}, {112, ""}, {113, "ii"}, {114, "ii"}, {115, "ib"},
    {116, "ib"}, {117, "iii"}, {118, "bbb"}, {119, "iii"}, {120, "bbb"}, {121, "P"}, {122, "i"}, {123, "i"},
    {124, "P"}, {125, "bb"}, {126, "bb"}, {127, "bE"}, {128, "bbtE"}, {129, "PSb"}, {130, "bE"}, {131, "bb"},
    {132, "pb"}, {133, "piw"}, {135, "w"}, {137, "pb"}, {138, "fb"}, {140, "iP"}, {141, "iPi"}, {142, "Pb"},
    {143, "Pb"}, {144, "Pib"}, {145, "P"}, {146, "i"}, {147, "i"}, {148, "Pb"}, {149, "an"}, {150, "an"}, {151, "i"},
    {152, ""}, {153, ""}, {155, "pp"}, {157, "iwwww"}, {158, "wa"}, {159, "b"}, {160, "ib"}, {161, "p"}, {162, ""},
    {163, "p"}, {164, "bb"}, {165, "ppslb"}, {166, "pl"}, {170, "sn"}, {171, "sn"}, {186, ""}, {187, "fon"},
    {188, "psbnl"}, {189, "psbnl"}, {190, "fsbnl"}, {191, "psbn"}, {192, "psbn"}, {193, "fsbn"}, {194, "pbn"},
    {195, "pbn"}, {196, "fbn"}, {197, "ps"}, {198, "ps"}, {199, "fs"}, {200, "PS"}, {201, "b"}, {202, "blitbi"},
    {203, "Pnb"}, {204, "Pnb"}, {206, "ib"}, {207, "i"}, {213, "i"}, {216, "anlil"}, {217, "fbn"}, {218, "b"},
    {219, ""}, {220, "iBit"}, {221, "foni"}, {222, "iBb"}, {223, "ilBb"}, {224, "ib"}, {225, "i"}, {226, "i"},
    {227, "ib"}, {228, "ib"}, {229, "ib"}, {230, "iltb"}, {232, "fbii"}, {233, "fifb"}, {234, "PPS"}, {235, "pb"},
    {237, "anibnl"}, {238, "ibn"}, {239, "bbnal"}, {240, "slib"}, {241, "s"}, {242, "fbnit"}, {243, "fbnbt"},
    {245, "fbb"}, {247, "iPblb"}, {251, "iii"}, {252, "ii"}, {253, ""}, {254, "fpl"}, {255, "fi"}, {256, "Pnbb"},
    {257, "fpli"}, {258, "fpi"}, {259, "fpii"}, {260, "fpiil"}, {261, "fpb"}, {262, "fpbl"}, {263, "fpl"},
    {264, "fpfp"}, {265, "fpfpl"}, {266, "pfp"}, {267, "fpbn"}, {268, "fpi"}, {269, "fpi"}, {270, "ibbbtB"},
    {271, "BitbE"}, {272, "l"}, {273, "bn"}, {274, "Pbb"}, {275, "fbfbnl"}, {276, "ffnl"}, {277, "fonl"},
    {278, "fBnl"}, {279, "PnBbbl"}, {280, "fpbl"}, {281, "fbiibE"}, {282, "fbE"}, {283, "il"}, {284, "i"},
    {285, "fioo"}, {286, "flbb"}, {287, "fb"}, {288, "fbbl"}, {289, "fbEl"}, {290, "il"}, {291, "l"}, {292, "ffl"},
    {293, "bl"}, {294, "l"}, {295, "fBioo"}, {296, "fBioo"}, {297, "PSb"}, {298, "bPifl"}, {299, "fBilt"}, {302, "Pibb"},
    {303, "fpbbl"}, {304, "fbl"}, {305, "ib"}, {306, "f"}, {307, "fBil"}, {308, "fi"}, {309, "bbb"}, {310, "PBiBil"},
    {311, "PBiBil"}, {312, "PPiii"}, {314, "Pbl"}, {315, "Pbnl"}, {316, "fpfpl"}, {317, "9lb"}, {318, "bnl"},
    {319, "sl"}, {321, "ibn"}, {322, "fpBBl"}, {323, "l"}, {324, "ili"}, {325, "anl"}, {326, "fbfbnl"},
    {327, "fBiool"}, {328, "fBiool"}, {329, "ani l"}, {330, "li"}, {331, "i"}, {332, "fplib"}, {333, "iiib"},
    {334, "bnli"}, {424, "fSbl"}, {425, "ib"}, {426, "fiilbn"}, {428, "fpl"}, {429, "fpfpl"}, {430, "sl"},
    {431, "flssi"}, {432, "fll"}, {434, "Pl"}, {435, "Bn"}, {436, "iil"}, {437, "fpbn"}, {438, "fil"}, {439, "fpil"},
    {440, "fBnil"}, {441, "fbitbE"}, {442, "fplbn"}, {444, "bnl"}, {447, "l"}, {448, "fl"}, {449, "Biltb"},
    {450, "anil"}, {451, "fbbl"}, {452, "fpil"}, {453, "anl"}, {454, "bii l"}, {455, "bili"}, {456, "bbil"},
    {457, "bbnl"}, {458, "bbnl"}, {462, "anl"},
};
#define NSIG_ ((int)(sizeof SIG / sizeof *SIG))

static __thread uint64_t rng;
static uint64_t rnd(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng * 0x2545F4914F6CDD1DULL;
}
static uint64_t below(uint64_t n) { return (rnd() >> 11) % n; }

static const char *PATHS[] = {
    "/tmp/f0", "/tmp/f1", "/tmp/f2", "/tmp/d0", "/tmp/d1", "/tmp/d0/a", "/tmp/d0/b", "/tmp/d1/../f0", "/tmp/l0", "/tmp/l1",
    "/", ".", "..", "", "/proc", "/proc/self/maps", "/proc/self/stat", "/proc/self/status", "/proc/self/fd", "/proc/self/fd/3",
    "/proc/self/mem", "/proc/self/exe", "/proc/self/cwd", "/proc/self/root", "/proc/self/environ", "/proc/self/smaps",
    "/proc/self/task", "/proc/self/ns", "/proc/self/limits", "/proc/self/mountinfo", "/proc/1/stat", "/proc/1/fd/0",
    "/proc/meminfo", "/proc/self/oom_score_adj", "/proc/sys/kernel/pid_max", "/proc/sys/vm/overcommit_memory", "/sys", "/dev", "/dev/null",
    "/dev/zero", "/dev/full", "/dev/random", "/dev/ptmx", "/dev/pts/0", "/dev/tty", "/dev/shm/x", "/dev/console", "/dev/fd/4",
    "/etc/passwd", "/etc", "/bin/sh", "/bin/true", "/usr/lib", "/bin/ls/x", "/tmp/fifo", "/tmp/sock", "/nonexistent",
    "/tmp/a/very/deep/path/that/is/not/there", "f0", "d0/../f1", "/proc/self/comm", "/proc/thread-self/stat", "/run", "/proc/self/pagemap",
};
#define NPATH ((int)(sizeof PATHS / sizeof *PATHS))

static char *area; // 64 pages, the last unmapped after it
#define AREA (64 * 4096)
static char longpath[5000];

static uint64_t number(void) {
    static const uint64_t N[] = {0, 1, 2, 3, 4, 7, 8, 16, 63, 64, 65, 100, 127, 128, 255, 256, 511, 512, 1000, 1024, 4095, 4096,
        4097, 8192, 65535, 65536, 65537, 1 << 20, 1 << 21, 1 << 30, 0x7ffffffe, 0x7fffffff, 0x80000000, 0x80000001,
        0xfffffffe, 0xffffffff, 0x100000000, 1ul << 40, 0x7ffffffff000, 0x7fffffffffff, 0x800000000000, 1ul << 48,
        1ul << 62, 0x7fffffffffffffff, 0x8000000000000000, 0xfffffffffffff000, -4096ul, -2ul, -1ul, -100ul};
    uint64_t v = N[below(sizeof N / sizeof *N)];
    if (below(8) == 0) v += below(5) - 2;
    if (below(16) == 0) v = rnd();
    if (below(16) == 0) v = rnd() >> below(64);
    return v;
}
static uint64_t flags(void) {
    switch (below(5)) {
    case 0: return 0;
    case 1: return 1ul << below(32);
    case 2: return (1ul << below(32)) | (1ul << below(32)) | (1ul << below(24));
    case 3: return below(64);
    default: return number();
    }
}
static uint64_t fd(void) {
    if (below(24) == 0) return number();
    if (below(24) == 0) return (uint64_t)-100;
    return 3 + below(60);
}
static uint64_t buffer(void) {
    switch (below(24)) {
    case 0: return 0;
    case 1: return (uint64_t)area + AREA - below(64);
    case 2: return number();
    case 3: return 0xffffffff81000000ul + below(4096);
    default: return (uint64_t)area + below(AREA - 8192) / 8 * 8;
    }
}
static uint64_t address(void) {
    switch (below(8)) {
    case 0: return 0;
    case 1: return number();
    case 2: return (uint64_t)sbrk(0) + below(1 << 20);
    case 3: return (uint64_t)&rng & ~4095ul;
    default: return 0x200000000000ul + below(512) * 4096 + (below(16) ? 0 : below(4096));
    }
}
static uint64_t text(void) {
    static const char *T[] = {"user.a", "user.b", "security.capability", "trusted.x", "system.posix_acl_access", "tmpfs", "proc", "x", "", "#!/bin/sh"};
    if (below(16) == 0) return buffer();
    return (uint64_t)T[below(10)];
}
static uint64_t path(void) {
    if (below(32) == 0) return buffer();
    if (below(64) == 0) return (uint64_t)longpath;
    return (uint64_t)PATHS[below(NPATH)];
}
static uint64_t pid(void) {
    switch (below(8)) {
    case 0: return 0;
    case 1: return number();
    case 2: return 2 + below(60);
    case 3: return getppid() == 1 ? 0 : getppid();
    default: return getpid();
    }
}
// Fills 4 KiB of random words: numbers, pointers, descriptors, sizes.
static void scramble(void) {
    uint64_t *words = (uint64_t *)(area + below(AREA - 8192) / 8 * 8);
    int count = 8 + below(120);
    for (int i = 0; i < count; i++) switch (below(8)) {
        case 0: words[i] = number(); break;
        case 1: words[i] = buffer(); break;
        case 2: words[i] = below(4096); break;
        case 3: words[i] = flags() | number() << 32; break;
        case 4: words[i] = fd() | flags() << 32; break;
        case 5: words[i] = 0; break;
        case 6: words[i] = address(); break;
        default: words[i] = path();
        }
}
static uint64_t structures(void) {
    uint64_t at = (uint64_t)area + below(AREA - 8192) / 8 * 8;
    uint64_t *w = (uint64_t *)at;
    int n = 1 + below(6);
    switch (below(4)) {
    case 0: // iovec
        for (int i = 0; i < n; i++) w[2 * i] = buffer(), w[2 * i + 1] = below(6) ? below(5000) : number();
        break;
    case 1: // msghdr with control
        w[0] = below(3) ? 0 : buffer(), w[1] = below(120), w[2] = at + 512, w[3] = n, w[4] = at + 1024, w[5] = below(2) ? 24 + below(64) : number(), w[6] = flags();
        for (int i = 0; i < n; i++) w[64 + 2 * i] = buffer(), w[65 + 2 * i] = below(2000);
        w[128] = below(4) ? 16 + 4 * below(10) : number();
        w[129] = below(4) ? 1 | (1 + below(3)) << 32 : flags();
        for (int i = 0; i < 10; i++) ((uint32_t *)(w + 130))[i] = fd();
        break;
    case 2: // pointers to strings, ended
        for (int i = 0; i < n; i++) w[i] = below(2) ? path() : text();
        w[n] = 0;
        break;
    default: // pollfds, events, flocks, timespecs
        for (int i = 0; i < 16; i++) w[i] = below(2) ? fd() | flags() << 32 : below(1000);
    }
    return at;
}
static uint64_t soon(void) {
    if (below(4) == 0) return buffer();
    uint64_t at = (uint64_t)area + below(AREA - 8192) / 8 * 8;
    uint64_t *w = (uint64_t *)at;
    w[0] = below(20) ? 0 : number(), w[1] = below(20) ? below(3000000) : number();
    return at;
}
static uint64_t argument(char c) {
    if (below(20) == 0) c = "fpbBnilowatPS"[below(13)];
    switch (c) {
    case 'f': return fd();
    case 'p': return path();
    case 's': return text();
    case 'b': return buffer();
    case 'B': return structures();
    case 'n': return below(3) ? below(9000) : number();
    case 'i': return below(4) ? below(40) : number();
    case 'I': return below(50);
    case 'E': return 8;
    case 'l': return flags();
    case 'o': return below(2) ? below(20000) : number();
    case 'a': return address();
    case 't': return soon();
    case 'P': return pid();
    case 'S': return below(4) ? below(66) : number();
    case '0': return 0;
    default: return below(2) ? number() : buffer();
    }
}

static void open_things(void) {
    int p[2];
    mkdir("/tmp/d0", 0777), mkdir("/tmp/d1", 0777), mkfifo("/tmp/fifo", 0666), symlink("/tmp/f0", "/tmp/l0");
    for (int k = 0; k < 2; k++) {
        pipe2(p, O_NONBLOCK);
        eventfd(1, EFD_NONBLOCK);
        epoll_create1(0);
        timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        sigset_t set;
        sigemptyset(&set), sigaddset(&set, SIGUSR1);
        signalfd(-1, &set, SFD_NONBLOCK);
        inotify_init1(IN_NONBLOCK);
        for (int type = 1; type <= 5; type += type == 2 ? 3 : 1) socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, p);
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        socket(AF_NETLINK, SOCK_RAW, 0);
        socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        memfd_create("m", MFD_ALLOW_SEALING);
        open("/tmp/f0", O_RDWR | O_CREAT, 0666), open("/tmp/f1", O_RDWR | O_CREAT, 0666), open("/tmp", O_RDONLY | O_DIRECTORY);
        open("/proc/self/maps", O_RDONLY), open("/proc", O_RDONLY), open("/bin/sh", O_RDONLY), open("/bin", O_PATH);
        open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK), open("/dev/zero", O_RDWR), open("/tmp/fifo", O_RDWR | O_NONBLOCK);
        open("/proc/self/mem", O_RDWR);
        syscall(SYS_pidfd_open, getpid(), 0);
    }
}

static int depth;
static void one(void) {
    uint64_t a[6];
    long nr;
    if (below(12) == 0) {
        nr = below(8) ? below(470) : number();
        for (int i = 0; i < 6; i++) a[i] = argument("fpbBnilowatPS"[below(13)]);
    } else {
        int k = below(NSIG_);
        nr = SIG[k].nr;
        const char *s = SIG[k].args;
        for (int i = 0; i < 6; i++) a[i] = *s ? argument(*s++) : rnd();
    }
    switch (nr) {
    case SYS_exit: case SYS_exit_group: case SYS_reboot: case SYS_seccomp: case SYS_rt_sigreturn: case SYS_pause:
        if (below(200)) return;
        break;
    case SYS_rt_sigprocmask: case SYS_setrlimit: case SYS_prlimit64: case SYS_close_range: case SYS_execve: case SYS_execveat:
    case SYS_setuid: case SYS_setresuid: case SYS_setreuid: case SYS_chroot: case SYS_kill: case SYS_tkill: case SYS_tgkill:
        if (below(10)) return;
        break;
    case SYS_munmap: case SYS_mmap: case SYS_mremap: case SYS_mprotect: case SYS_madvise:
        // Not over the program itself, most times.
        if (below(100) && a[0] < 0x200000000000ul && nr != SYS_mmap) return;
        if (nr == SYS_mmap && below(100) && a[0] < 0x200000000000ul) a[3] &= ~0x100010ul;
        break;
    case SYS_fork: case SYS_vfork: case SYS_clone: case SYS_clone3:
        if (below(20) || depth > 2) return;
        if (nr == SYS_clone || nr == SYS_clone3) {
            if (below(3)) {
                // A thread or process with a stack of its own that goes at once.
                static char stack[1 << 16];
                if (a[0] & CLONE_VM) a[1] = (uint64_t)stack + sizeof stack - 4096;
                if (a[0] & CLONE_VM) return;
            } else
                return;
        }
        if (nr == SYS_vfork) nr = SYS_fork;
        depth++;
        break;
    case SYS_ioctl: {
        static const uint32_t IO[] = {0x5401, 0x5402, 0x5403, 0x5404, 0x5405, 0x5406, 0x5407, 0x5409, 0x540a, 0x540b, 0x540c, 0x540d, 0x540e,
            0x540f, 0x5410, 0x5411, 0x5412, 0x5413, 0x5414, 0x541b, 0x5420, 0x5421, 0x5422, 0x5423, 0x5424, 0x5425, 0x5429,
            0x5450, 0x5451, 0x5452, 0x80045430, 0x40045431, 0x80045432, 0x80045438, 0x80045439, 0x5441, 0x8910, 0x8912, 0x8913, 0x8927, 0x8921, 0x8933, 0x801c581f, 0x80086601};
        if (below(8)) a[1] = IO[below(sizeof IO / sizeof *IO)];
    }
    }
    long r = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if ((nr == SYS_fork || nr == SYS_clone || nr == SYS_clone3) && r == 0) rng ^= 0x9e3779b97f4a7c15ul * (uint64_t)getpid();
}

static void restart(int sig) { (void)sig; }

static void *thread(void *arg) {
    rng = (uint64_t)arg | 1;
    for (int i = 0; i < 400; i++) one();
    return NULL;
}

static void child(uint64_t seed) {
    rng = seed * 0x9e3779b97f4a7c15ul | 1;
    for (int i = 0; i < 4; i++) rnd();
    if (!getenv("FUZZ_LOUD")) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0), dup2(null, 1), dup2(null, 2), close(null);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    area = mmap(NULL, AREA + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(area + AREA, 4096, PROT_NONE);
    memset(longpath, 'x', sizeof longpath - 1);
    mmap((void *)0x200000000000, 256 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    open_things();
    for (int s = 1; s < 65; s++)
        if (s != SIGSEGV && s != SIGBUS && s != SIGILL) sigaction(s, &(struct sigaction){.sa_handler = restart}, NULL);
    // Ends every wait soon: SA_RESTART is not set.
    struct itimerval often = {{0, 5000}, {0, 5000}};
    setitimer(ITIMER_REAL, &often, NULL);
    pthread_t t;
    if (below(3) == 0) pthread_create(&t, NULL, thread, (void *)rnd());
    if (below(3) == 0) pthread_create(&t, NULL, thread, (void *)rnd());
    for (int i = 0; i < 1500; i++) {
        if (below(4) == 0) scramble();
        one();
        if (i % 32 == 0) setitimer(ITIMER_REAL, &often, NULL);
    }
    _exit(0);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 4;
    uint64_t seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;
    int only = argc > 3;
    char version[64] = {0};
    int f = open("/proc/version", O_RDONLY);
    if (f < 0 || read(f, version, 60) < 0) DIE("/proc/version");
    close(f);
    int inside = strstr(version, "nanovisor") != NULL;
    double end = now() + seconds;
    uint64_t first = seed;
    while (inside && now() < end) {
        pid_t kids[8];
        int parallel = only ? 1 : 8;
        for (int i = 0; i < parallel; i++, seed++) {
            kids[i] = fork();
            if (kids[i] == 0) child(seed);
        }
        double limit = now() + 0.8;
        int left = parallel;
        while (left > 0) {
            int st;
            pid_t p = waitpid(-1, &st, WNOHANG);
            for (int i = 0; i < parallel; i++)
                if (p > 0 && p == kids[i]) left--, kids[i] = -1;
            if (p < 0) break;
            if (p == 0) usleep(2000);
            if (now() > limit) break;
        }
        // What lives on dies here; process 1, which is us or a shell, is spared by kill(-1).
        kill(-1, SIGKILL);
        while (waitpid(-1, NULL, 0) > 0) {}
        unlink("/tmp/f0"), unlink("/tmp/f1"), unlink("/tmp/f2");
        if (only) break;
    }
    if (argc > 1) fprintf(stderr, "seeds %lu to %lu\n", first, seed);
    CHECK("the kernel lives", getppid() >= 0);
    return t_failed;
}
