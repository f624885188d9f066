/* Elementwise operators of sixteen channels at a time, values in 16 bits. A value beyond 16 bits is held as the nearest
 * one within; only clips and thresholds, which cannot tell the difference, take such values. */
#ifndef QXR_AVX2_WORDS_H
#define QXR_AVX2_WORDS_H

#include <immintrin.h>

#include "x86/avx2.h"

enum { WORDS = 16, MOST_WORD_THRESHOLDS = 15 /* levels are looked up in 16 bytes */ };

static inline int qxr_fits_words(const qxr_tensor *t) { return t->lo >= INT16_MIN && t->hi <= INT16_MAX; }

/* (x multiplier + addend) >> shift in two parts of 16 bits: the low one is shifted by 16, and added to the high one.
 * Each for the channels 0-3 and 8-11, then for the others. */
typedef struct qxr_word_rescale {
    __m256i low[2];     /* pairs: of the multiplier, of the addend */
    __m256i high[2];    /* pairs: of the multiplier, 0 */
    __m256i addend[2];  /* high part */
    uint32_t shift;     /* what is left of it */
} qxr_word_rescale;

typedef struct qxr_word_threshold {
    __m256i threshold[MOST_WORD_THRESHOLDS];
    __m256i sign;       /* -1 where the channel's sign is -1, else 0 */
    __m256i levels;     /* as bytes, the highest first */
    uint32_t count;
    int has_signs;
    int plain;          /* each level is the one above less 1 */
} qxr_word_threshold;

/* Constants of the channels from `channel` on; 0 where a value between could leave its bits. */
int qxr_read_word_rescale(const qxr_work *work, uint32_t channel, qxr_word_rescale *k);
int qxr_read_word_threshold(const qxr_work *work, uint32_t channel, qxr_word_threshold *k);

/* y = min(max(f(x), lo), hi) of some pixels. */
void qxr_rescale_words(const qxr_word_rescale *k, qxr_words x, qxr_words y, int32_t lo, int32_t hi, uint32_t pixels);
void qxr_add_words(qxr_words a, qxr_words b, qxr_words y, int32_t lo, int32_t hi, uint32_t pixels);
void qxr_clip_words(qxr_words x, qxr_words y, int32_t lo, int32_t hi, uint32_t pixels);
void qxr_load_words(const uint8_t *x, size_t pitch, int32_t base, qxr_words y, uint32_t pixels);
void qxr_threshold_words(const qxr_word_threshold *k, qxr_words x, uint8_t *y, size_t pitch, uint32_t pixels);

/* avx2_move.c: a tile in 16 bits of a pad or a slice that begins a group. Returns 0, with nothing done, where it
 * cannot. */
int qxr_move_words(const qxr_chain *chain, const qxr_tile *tile, qxr_words y);

/* Whether the chain reads the result of its operator `index`. */
int qxr_is_read(const qxr_chain *chain, uint32_t index);

/* avx2_chain_words.c: a chain for the sixteen channels from the tile's channel c on; `made` holds the result of the
 * operator before it. Returns 0, with nothing done, where a value does not fit. */
int qxr_chain_words(const qxr_chain *chain, const qxr_tile *tile, uint32_t c, qxr_words made);

#endif
