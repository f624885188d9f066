/* The products of the table look-up convolution. */
#include <string.h>

#include "x86/avx2_table.h"

/* The table row of one quad for all lanes, or copies of those of two quads, one for each half. */
INLINE __m256i look_up(const uint8_t *quad, int copies)
{
    uint16_t offset;
    if (copies)
        return _mm256_loadu_si256((const __m256i *)(const void *)quad);
    memcpy(&offset, quad, sizeof offset);
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)(qxr_table + offset)));
}

/* Sums of 8 bits join those of 16: even lanes with 256 times the odd ones, and odd lanes by themselves; what the odd ones
 * add to the even ones is taken away in the end. */
INLINE void widen(qxr_table_product *p, __m256i sum[MOST_ROWS][WIDEST], int rows, int width, int first)
{
    UNROLL_ALL for (int r = 0; r < rows; r++)
        UNROLL_ALL for (int v = 0; v < width; v++) {
            __m256i *to = p->sums[r][v];
            const __m256i odd = _mm256_srli_epi16(sum[r][v], 8);
            to[0] = first ? sum[r][v] : _mm256_add_epi16(to[0], sum[r][v]);
            to[1] = first ? odd : _mm256_add_epi16(to[1], odd);
            sum[r][v] = _mm256_setzero_si256();
        }
}

INLINE void separate(qxr_table_product *p, int rows, int width)
{
    UNROLL_ALL for (int r = 0; r < rows; r++)
        UNROLL_ALL for (int v = 0; v < width; v++) {
            __m256i *to = p->sums[r][v];
            to[0] = _mm256_sub_epi16(to[0], _mm256_slli_epi16(to[1], 8));
        }
}

/* As an instruction: else compilers add the entries of two steps first, and run out of registers. */
INLINE void add_bytes(__m256i *sum, __m256i x) { __asm__("vpaddb %1, %0, %0" : "+x"(*sum) : "x"(x)); }

/* One step: the quads `at` bytes behind the rows' beginnings. */
INLINE void add_step(__m256i sum[MOST_ROWS][WIDEST], const uint8_t *const *row, size_t at, const __m256i *w, int rows,
                     int width, int copies)
{
    __m256i entry[MOST_ROWS];
    UNROLL_ALL for (int r = 0; r < rows; r++)
        entry[r] = look_up(row[r] + at, copies);
    UNROLL_ALL for (int v = 0; v < width; v++) {
        __m256i pattern = _mm256_load_si256(w + v);
        __asm__("" : "+x"(pattern)); /* else it is loaded once for each row, and loads are what is scarce */
        UNROLL_ALL for (int r = 0; r < rows; r++)
            add_bytes(&sum[r][v], _mm256_shuffle_epi8(entry[r], pattern));
    }
}

/* Some steps of one segment, two a turn. */
INLINE void add_steps(__m256i sum[MOST_ROWS][WIDEST], const uint8_t *const *row, size_t at, const __m256i *w,
                      uint32_t steps, int rows, int width, int copies)
{
    const size_t size = copies ? 2u * ENTRY_BYTES : sizeof(uint16_t);
    const __m256i *end = w + (size_t)(steps / 2u) * 2u * (uint32_t)width;
    for (; w != end; w += 2 * width, at += 2u * size) {
        add_step(sum, row, at, w, rows, width, copies);
        add_step(sum, row, at + size, w + width, rows, width, copies);
    }
    if (steps % 2u)
        add_step(sum, row, at, w, rows, width, copies);
}

INLINE void multiply(qxr_table_product *p, int rows, int width, int copies)
{
    const size_t size = copies ? 2u * ENTRY_BYTES : sizeof(uint16_t);
    const uint16_t *run = p->runs;
    const __m256i *w = p->weights;
    __m256i sum[MOST_ROWS][WIDEST];
    uint32_t left = *run;
    UNROLL_ALL for (int r = 0; r < rows; r++)
        UNROLL_ALL for (int v = 0; v < width; v++)
            sum[r][v] = _mm256_setzero_si256();
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const uint8_t *row[MOST_ROWS];
            UNROLL_ALL for (int r = 0; r < rows; r++)
                row[r] = p->row[r] + outer * p->outer_step + inner * p->inner_step;
            for (uint32_t done = 0; done < p->steps;) {
                const uint32_t steps = qxr_min(left, p->steps - done);
                add_steps(sum, row, done * size, w, steps, rows, width, copies);
                w += (size_t)steps * (uint32_t)width;
                done += steps;
                left -= steps;
                if (left)
                    continue;
                if (run == p->runs)
                    widen(p, sum, rows, width, 1);
                else
                    widen(p, sum, rows, width, 0);
                left = *++run;
            }
        }
    if (run == p->runs)
        widen(p, sum, rows, width, 1);
    else
        widen(p, sum, rows, width, 0);
    separate(p, rows, width);
}

/* Functions of their own, so that the loops have the registers to themselves. */
#define PRODUCT static __attribute__((noinline)) void
PRODUCT multiply_8x1(qxr_table_product *p) { multiply(p, 8, 1, 0); }
PRODUCT multiply_8x1_copies(qxr_table_product *p) { multiply(p, 8, 1, 1); }
PRODUCT multiply_4x2(qxr_table_product *p) { multiply(p, 4, 2, 0); }
PRODUCT multiply_2x3(qxr_table_product *p) { multiply(p, 2, 3, 0); }
PRODUCT multiply_2x4(qxr_table_product *p) { multiply(p, 2, 4, 0); }
PRODUCT multiply_1x4(qxr_table_product *p) { multiply(p, 1, 4, 0); }

void qxr_table_multiply(qxr_table_product *p, uint32_t vectors, uint32_t count, int copies)
{
    if (copies)
        multiply_8x1_copies(p);
    else if (vectors == 1u)
        multiply_8x1(p);
    else if (vectors == 2u)
        multiply_4x2(p);
    else if (vectors == 3u)
        multiply_2x3(p);
    else if (count == 1u)
        multiply_1x4(p);
    else
        multiply_2x4(p);
}
