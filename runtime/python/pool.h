/* A team of threads that share the tasks of one caller. POSIX threads. */
#ifndef QXR_PYTHON_POOL_H
#define QXR_PYTHON_POOL_H

#include <stdint.h>

typedef struct pool pool;

/* Starts threads - 1 workers: the calling thread is the other one. Null, with errno set, if that fails. */
pool *pool_new(uint32_t threads);

/* Stops and joins the workers. In a child made by fork, where they do not exist, gives back the memory only. */
void pool_free(pool *team);

/* Calls work(argument, i) for every i < count and returns when all have returned: the `parallel` of qxr_host, whose
 * context is the pool. One caller at a time; a task must not call it. */
void pool_parallel(void *context, uint32_t count, void (*work)(void *argument, uint32_t index), void *argument);

#endif
