/* Instructions that a run takes with each instruction set, on QEMU's board "virt" without an operating system. With
 * -icount shift=0 an instruction takes a nanosecond, and the processor's counter shows nanoseconds.
 *
 * Compiled with -DMODEL="file.qpk" and the library's sources. Prints, through semihosting:
 *     ISA instructions FIRST END     of each group of operators: the tensors it makes
 *     ISA output HASH                of all outputs, FNV-1a */
#include <string.h>

#include "kernels.h"

__asm__(".global start\n"
        "start:\n"
        "    mov x0, #(3 << 20)\n" /* NEON may be used */
        "    msr cpacr_el1, x0\n"
        "    isb\n"
        "    ldr x0, =stack_top\n"
        "    mov sp, x0\n"
        "    bl main\n"
        "    mov x0, #0x18\n"      /* exit */
        "    adr x1, exit_block\n"
        "    hlt #0xf000\n"
        "    .balign 8\n"
        "exit_block: .quad 0x20026, 0\n");

__asm__(".section .rodata\n"
        ".balign 64\n"
        "model_file: .incbin \"" MODEL "\"\n"
        "model_end:\n"
        ".balign 64\n"
        ".text\n");
extern const uint8_t model_file[], model_end[];

typedef uint64_t vector __attribute__((vector_size(16), aligned(1)));

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    for (; size >= sizeof(vector); size -= sizeof(vector), t += sizeof(vector), f += sizeof(vector))
        *(vector *)(void *)t = *(const vector *)(const void *)f;
    for (; size; size--)
        *t++ = *f++;
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    const uint64_t eight = (uint64_t)(uint8_t)byte * 0x0101010101010101u;
    uint8_t *t = to;
    for (; size >= sizeof(vector); size -= sizeof(vector), t += sizeof(vector))
        *(vector *)(void *)t = (vector){eight, eight};
    for (; size; size--)
        *t++ = (uint8_t)byte;
    return to;
}

static void print(const char *text)
{
    register uint64_t operation __asm__("x0") = 4; /* SYS_WRITE0 */
    register const char *argument __asm__("x1") = text;
    __asm__ volatile("hlt #0xf000" : "+r"(operation) : "r"(argument) : "memory");
}

static void print_number(uint64_t n)
{
    char digits[24];
    char *next = digits + sizeof digits;
    *--next = 0;
    do
        *--next = (char)('0' + n % 10u);
    while (n /= 10u);
    print(" ");
    print(next);
}

static uint64_t counter(void)
{
    uint64_t n;
    __asm__ volatile("isb\n mrs %0, pmccntr_el0" : "=r"(n)::"memory");
    return n;
}

enum { MOST_GROUPS = 8192 };

typedef struct passage {
    uint64_t at;
    uint32_t first, end;
} passage;

static passage passages[MOST_GROUPS];
static uint32_t passed_groups;

static void passed(void *context, uint32_t first, uint32_t end)
{
    const passage p = {counter(), first, end};
    (void)context;
    passages[passed_groups++] = p;
}

enum { MEMORY = 96 << 20 };
static _Alignas(64) uint8_t memory[MEMORY];

static void run(const qxr_isa *isa)
{
    uint8_t *next = memory;
    const uint8_t *inputs[8];
    int32_t *outputs[8];
    uint32_t hash = 2166136261u;
    qxr_host host = {0};
    qxr_model model;
    qxr_tensor_info info;
    size_t size;
    if (qxr_open(model_file, (size_t)(model_end - model_file), &model) != QXR_OK)
        print("not a model\n");
    model.isa = isa;
    size = qxr_prepack_size(&model);
    qxr_prepack(&model, next, size);
    next += qxr_round_up(size, 64u);
    for (uint32_t i = 0; i < qxr_input_count(&model); i++) {
        qxr_input_info(&model, i, &info);
        inputs[i] = next;
        for (uint32_t k = 0; k < info.elements; k++)
            *next++ = (uint8_t)(k * 2654435761u >> 24);
    }
    next = memory + qxr_round_up((size_t)(next - memory), 64u);
    for (uint32_t i = 0; i < qxr_output_count(&model); i++) {
        qxr_output_info(&model, i, &info);
        outputs[i] = (int32_t *)(void *)next;
        next += 4u * info.elements;
    }
    next = memory + qxr_round_up((size_t)(next - memory), 64u);
    passed_groups = 0;
    host.passed = passed;
    if (qxr_run(&model, next, MEMORY - (size_t)(next - memory), inputs, outputs, &host) != QXR_OK)
        print("not run\n");
    for (uint32_t g = 1; g < passed_groups; g++) {
        print(isa->name);
        print(" instructions");
        print_number(passages[g].at - passages[g - 1u].at);
        print_number(passages[g].first);
        print_number(passages[g].end);
        print("\n");
    }
    for (uint32_t i = 0; i < qxr_output_count(&model); i++) {
        qxr_output_info(&model, i, &info);
        for (uint32_t k = 0; k < 4u * info.elements; k++)
            hash = (hash ^ ((const uint8_t *)outputs[i])[k]) * 16777619u;
    }
    print(isa->name);
    print(" output");
    print_number(hash);
    print("\n");
}

int main(void)
{
    __asm__ volatile("msr pmcntenset_el0, %0\n msr pmcr_el0, %1\n isb" ::"r"(1ull << 31), "r"(1ull));
    run(&qxr_isa_scalar);
    run(&qxr_isa_neon);
    run(&qxr_isa_dotprod);
    run(&qxr_isa_i8mm);
    return 0;
}
