/* Threads for the test programs where there are none: work begins at once and has ended when it is waited for. */
#ifndef QXR_WASI_PTHREAD_H
#define QXR_WASI_PTHREAD_H

typedef int pthread_t;

static inline int pthread_create(pthread_t *thread, const void *attributes, void *(*work)(void *), void *argument)
{
    (void)attributes;
    *thread = 0;
    (void)work(argument);
    return 0;
}

static inline int pthread_join(pthread_t thread, void **result)
{
    (void)thread;
    (void)result;
    return 0;
}

#endif
