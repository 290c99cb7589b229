// build: static dynamic
// Threads, mutexes, conditions, barriers, thread-local storage, once, keys, cancellation.
#include "t.h"
#include <pthread.h>
#include <semaphore.h>

#define N 8
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ready = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static long counter, queue, consumed;
static __thread long local = 5;
static pthread_key_t key;
static int destroyed;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_runs;

static void destroy(void *p) { (void)p; __atomic_add_fetch(&destroyed, 1, __ATOMIC_SEQ_CST); }
static void run_once(void) { once_runs++; }

static void *count(void *arg) {
    long id = (long)arg;
    local += id;
    pthread_setspecific(key, &counter);
    pthread_once(&once, run_once);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
    }
    return (void *)local;
}

static void *consume(void *arg) {
    (void)arg;
    long mine = 0;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (queue == 0) pthread_cond_wait(&ready, &lock);
        if (queue < 0) break;
        queue--;
        mine++;
    }
    consumed += mine;
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *sleeper(void *arg) { (void)arg; for (;;) pause(); return NULL; }

int main(void) {
    pthread_t t[N];
    pthread_key_create(&key, destroy);
    pthread_barrier_init(&barrier, NULL, N);
    for (long i = 0; i < N; i++)
        if (pthread_create(&t[i], NULL, count, (void *)i)) DIE("pthread_create");
    for (long i = 0; i < N; i++) {
        void *r;
        pthread_join(t[i], &r);
        if ((long)r != 5 + i) printf("FAIL local of %ld is %ld\n", i, (long)r);
    }
    printf("counter %ld, own local %ld, destructors %d, once %d\n", counter, local, destroyed, once_runs);

    for (long i = 0; i < N; i++) pthread_create(&t[i], NULL, consume, NULL);
    for (int i = 0; i < 5000; i++) {
        pthread_mutex_lock(&lock);
        queue++;
        pthread_cond_signal(&ready);
        pthread_mutex_unlock(&lock);
    }
    for (;;) {
        pthread_mutex_lock(&lock);
        if (queue == 0) break;
        pthread_mutex_unlock(&lock);
        sched_yield();
    }
    queue = -1;
    pthread_cond_broadcast(&ready);
    pthread_mutex_unlock(&lock);
    for (long i = 0; i < N; i++) pthread_join(t[i], NULL);
    printf("consumed %ld\n", consumed);

    pthread_create(&t[0], NULL, sleeper, NULL);
    CHECK("cancel", pthread_cancel(t[0]) == 0);
    void *r;
    pthread_join(t[0], &r);
    CHECK("cancelled", r == PTHREAD_CANCELED);

    sem_t sem;
    sem_init(&sem, 0, 0);
    struct timespec past = {0, 0};
    SHOW("sem_timedwait of the past", sem_timedwait(&sem, &past));
    struct timespec soon;
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_nsec += 20000000;
    if (soon.tv_nsec >= 1000000000) { soon.tv_sec++; soon.tv_nsec -= 1000000000; }
    SHOW("sem_timedwait of soon", sem_timedwait(&sem, &soon));
    sem_post(&sem);
    SHOW("sem_wait", sem_wait(&sem));

    pthread_mutexattr_t attr;
    pthread_mutex_t robust;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&robust, &attr);
    pthread_mutex_lock(&robust);
    CHECK("relock is EDEADLK", pthread_mutex_lock(&robust) == EDEADLK);
    pthread_mutex_unlock(&robust);
    CHECK("unlock of an unlocked is EPERM", pthread_mutex_unlock(&robust) == EPERM);
    // Threads of an exiting process end with it.
    IN_CHILD("exit beside threads", { pthread_t x; pthread_create(&x, NULL, sleeper, NULL); exit(3); });
    IN_CHILD("last thread out", {
        pthread_t x;
        pthread_create(&x, NULL, (void *(*)(void *))pthread_exit, NULL);
        pthread_exit(NULL);
    });
    END;
}
