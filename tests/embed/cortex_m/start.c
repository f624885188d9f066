/* Start of a program on an emulated Cortex-M whose console and files are the host's (semihosting, newlib's rdimon). */
#include <stdlib.h>
#include <string.h>

extern char data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];
void initialise_monitor_handles(void);
int main(void);
void reset(void);
void fault(void);

struct table {
    char *stack;
    void (*handlers[15])(void);
};

__attribute__((section(".vectors"), used)) static const struct table vectors = {
    stack_top, {reset, fault, fault, fault, fault, fault},
};

/* Coprocessor access control: the registers of floating point are those of Helium. */
#define CPACR (*(volatile unsigned *)0xE000ED88)

void reset(void)
{
#ifdef __ARM_FP
    CPACR |= 0xFu << 20;
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    memcpy(data_start, data_load, (size_t)(data_end - data_start));
    memset(bss_start, 0, (size_t)(bss_end - bss_start));
    initialise_monitor_handles();
    exit(main());
}

void fault(void)
{
    exit(70);
}

void _init(void) {}
void _fini(void) {}
