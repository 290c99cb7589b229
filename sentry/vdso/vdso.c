/*
 * The vDSO: clocks that never leave the guest. Built by build.rs into a shared object without relocations, which is
 * mapped right behind its data page. What the data page cannot answer goes to the kernel.
 */
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

struct timespec { i64 sec, nsec; };
struct timeval { i64 sec, usec; };
struct timezone { int minuteswest, dsttime; };

/* Written by sentry/src/loader/vdso.rs: keep the two alike. */
struct vvar {
	u32 seq;          /* odd while it is being written */
	u32 mode;         /* 0: ask the kernel, 1: count TSC ticks */
	u64 base_tsc;
	u64 mult;         /* nanoseconds a tick, 32.32 */
	i64 base_ns;      /* CLOCK_MONOTONIC at base_tsc */
	i64 real_offset;  /* CLOCK_REALTIME minus CLOCK_MONOTONIC */
};
extern const volatile struct vvar nv_vvar __attribute__((visibility("hidden")));

#define NSEC 1000000000L
#define SYS_gettimeofday 96
#define SYS_time 201
#define SYS_clock_gettime 228
#define SYS_clock_getres 229
#define SYS_getcpu 309

static i64 call3(i64 nr, i64 a, i64 b, i64 c)
{
	i64 ret;
	__asm__ volatile("syscall" : "=a"(ret) : "0"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return ret;
}

static inline u64 ticks(void)
{
	u32 lo, hi;
	/* The fence keeps the counter from being read ahead of earlier loads. */
	__asm__ volatile("lfence\n\trdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return ((u64)hi << 32) | lo;
}

/* Reads both clocks at one instant; 0 where the kernel must be asked. */
static int now(i64 *mono, i64 *real_offset)
{
	const volatile struct vvar *v = &nv_vvar;
	for (;;) {
		u32 seq = v->seq;
		if (seq & 1) {
			__asm__ volatile("pause");
			continue;
		}
		if (v->mode != 1)
			return 0;
		u64 base = v->base_tsc, mult = v->mult, t = ticks();
		i64 ns = v->base_ns, offset = v->real_offset;
		if (v->seq != seq)
			continue;
		/* Another processor's counter may be a few ticks behind. */
		u64 delta = t > base ? t - base : 0;
		*mono = ns + (i64)(((unsigned __int128)delta * mult) >> 32);
		*real_offset = offset;
		return 1;
	}
}

static void split(i64 ns, struct timespec *ts)
{
	ts->sec = ns / NSEC;
	ts->nsec = ns % NSEC;
}

int __vdso_clock_gettime(int clock, struct timespec *ts)
{
	i64 mono, offset;
	switch (clock) {
	case 0: case 5: case 11:
		if (!now(&mono, &offset))
			break;
		split(mono + offset, ts);
		return 0;
	case 1: case 4: case 6: case 7:
		if (!now(&mono, &offset))
			break;
		split(mono, ts);
		return 0;
	}
	return (int)call3(SYS_clock_gettime, clock, (i64)ts, 0);
}

int __vdso_gettimeofday(struct timeval *tv, struct timezone *tz)
{
	i64 mono, offset;
	if (!now(&mono, &offset))
		return (int)call3(SYS_gettimeofday, (i64)tv, (i64)tz, 0);
	if (tv) {
		tv->sec = (mono + offset) / NSEC;
		tv->usec = (mono + offset) % NSEC / 1000;
	}
	if (tz)
		tz->minuteswest = tz->dsttime = 0;
	return 0;
}

i64 __vdso_time(i64 *out)
{
	i64 mono, offset;
	if (!now(&mono, &offset))
		return call3(SYS_time, (i64)out, 0, 0);
	i64 sec = (mono + offset) / NSEC;
	if (out)
		*out = sec;
	return sec;
}

int __vdso_clock_getres(int clock, struct timespec *res)
{
	return (int)call3(SYS_clock_getres, clock, (i64)res, 0);
}

/* rdpid and rdtscp would tell the host's processor. */
int __vdso_getcpu(u32 *cpu, u32 *node, void *unused)
{
	return (int)call3(SYS_getcpu, (i64)cpu, (i64)node, (i64)unused);
}

int clock_gettime(int, struct timespec *) __attribute__((weak, alias("__vdso_clock_gettime")));
int gettimeofday(struct timeval *, struct timezone *) __attribute__((weak, alias("__vdso_gettimeofday")));
i64 time(i64 *) __attribute__((weak, alias("__vdso_time")));
int clock_getres(int, struct timespec *) __attribute__((weak, alias("__vdso_clock_getres")));
int getcpu(u32 *, u32 *, void *) __attribute__((weak, alias("__vdso_getcpu")));
