#define _POSIX_C_SOURCE 200809L /* sigset_t and pthread_sigmask beside -std=c11 */

#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t begin; /* a job was posted, or stop */
    pthread_cond_t end;   /* the last worker left the job */
    pid_t owner;          /* process that has the workers */
    uint32_t workers;
    /* Written under the lock; read without it by those who wait awake. */
    atomic_uint posted; /* number of jobs so far */
    atomic_uint busy;   /* workers inside the job */
    int stop;           /* under the lock */
    /* The job; written under the lock while no worker is inside. */
    void (*work)(void *argument, uint32_t index);
    void *argument;
    uint32_t count;
    atomic_uint_fast32_t next; /* first index nobody has taken */
    pthread_t thread[];
};

/* The jobs of one run follow each other within microseconds, and a thread that sleeps takes tens of them to wake: who
 * waits looks for some 20 microseconds before he sleeps. */
enum { LOOKS = 500 };

static void pause_thread(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Until the number is no longer (or, with `until`, at last) this one; gives up after a while. */
static void look_at(atomic_uint *number, unsigned int value, int until)
{
    for (int i = 0; i < LOOKS && (atomic_load_explicit(number, memory_order_acquire) == value) != until; i++) {
        pause_thread();
    }
}

static void take_tasks(pool *team)
{
    for (;;) {
        const uint_fast32_t index = atomic_fetch_add(&team->next, 1u);
        if (index >= team->count) {
            return;
        }
        team->work(team->argument, (uint32_t)index);
    }
}

static void *worker(void *context)
{
    pool *team = context;
    uint32_t seen = 0;
    pthread_mutex_lock(&team->lock);
    while (!team->stop) {
        if (seen == team->posted) {
            pthread_mutex_unlock(&team->lock);
            look_at(&team->posted, seen, 0);
            pthread_mutex_lock(&team->lock);
            while (seen == team->posted && !team->stop) {
                pthread_cond_wait(&team->begin, &team->lock);
            }
            continue;
        }
        seen = team->posted;
        if (atomic_load(&team->next) >= team->count) {
            continue; /* woken too late: the job is done, and its caller may be gone */
        }
        team->busy++;
        pthread_mutex_unlock(&team->lock);
        take_tasks(team);
        pthread_mutex_lock(&team->lock);
        if (--team->busy == 0) {
            pthread_cond_signal(&team->end);
        }
    }
    pthread_mutex_unlock(&team->lock);
    return NULL;
}

static void stop_workers(pool *team)
{
    pthread_mutex_lock(&team->lock);
    team->stop = 1;
    pthread_cond_broadcast(&team->begin);
    pthread_mutex_unlock(&team->lock);
    for (uint32_t i = 0; i < team->workers; i++) {
        pthread_join(team->thread[i], NULL);
    }
}

pool *pool_new(uint32_t threads)
{
    pool *team = calloc(1, sizeof(pool) + (size_t)threads * sizeof(pthread_t));
    if (team == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    team->owner = getpid();
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->begin, NULL);
    pthread_cond_init(&team->end, NULL);
    sigset_t all, before; /* the interpreter's own threads handle signals */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    while (error == 0 && team->workers + 1u < threads) {
        error = pthread_create(&team->thread[team->workers], NULL, worker, team);
        team->workers += error == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        pool_free(team);
        errno = error;
        return NULL;
    }
    return team;
}

void pool_free(pool *team)
{
    if (team == NULL) {
        return;
    }
    if (team->owner == getpid()) {
        stop_workers(team);
        pthread_cond_destroy(&team->end);
        pthread_cond_destroy(&team->begin);
        pthread_mutex_destroy(&team->lock);
    }
    free(team);
}

void pool_parallel(void *context, uint32_t count, void (*work)(void *argument, uint32_t index), void *argument)
{
    pool *team = context;
    pthread_mutex_lock(&team->lock);
    team->work = work;
    team->argument = argument;
    team->count = count;
    atomic_store(&team->next, 0u);
    team->posted++;
    if (count > 1) {
        pthread_cond_broadcast(&team->begin);
    }
    pthread_mutex_unlock(&team->lock);
    take_tasks(team);
    look_at(&team->busy, 0, 1);
    pthread_mutex_lock(&team->lock);
    while (team->busy != 0) {
        pthread_cond_wait(&team->end, &team->lock);
    }
    pthread_mutex_unlock(&team->lock);
}
