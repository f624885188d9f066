/* The table of convolutions that are measured (qxr_bench) and compared with the scalar kernel (qxr_bench --check), for
 * every instruction set. A kernel without a row that it suits is an error of --check.
 *
 * QXR_SHAPE(name, channels, height, width, outputs, window, stride, padding, dilation, groups,
 *           weight bits, entries of the codebook (0: two's complement), storage of the input, lo, hi) */
#define QXR_SHAPES(QXR_SHAPE)                                                                                    \
    QXR_SHAPE("3x3 64 56x56 w1a1", 64, 56, 56, 64, 3, 1, 1, 1, 1, 1, 2, QXR_U8, -1, 1)                           \
    QXR_SHAPE("3x3 64 56x56 w2a2", 64, 56, 56, 64, 3, 1, 1, 1, 1, 2, 0, QXR_U8, 0, 3)                            \
    QXR_SHAPE("3x3 64 56x56 ternary a2", 64, 56, 56, 64, 3, 1, 1, 1, 1, 2, 3, QXR_U8, 0, 3)                      \
    QXR_SHAPE("3x3 64 56x56 w3a3 powers", 64, 56, 56, 64, 3, 1, 1, 1, 1, 3, 7, QXR_U8, -4, 4)                    \
    QXR_SHAPE("3x3 64 56x56 w4a4", 64, 56, 56, 64, 3, 1, 1, 1, 1, 4, 0, QXR_U8, 0, 15)                           \
    QXR_SHAPE("3x3 64 56x56 w8a4", 64, 56, 56, 64, 3, 1, 1, 1, 1, 8, 0, QXR_U8, 0, 15)                           \
    QXR_SHAPE("3x3 64 56x56 w8a7", 64, 56, 56, 64, 3, 1, 1, 1, 1, 8, 0, QXR_U8, 0, 127)                          \
    QXR_SHAPE("3x3 64 56x56 w8a8", 64, 56, 56, 64, 3, 1, 1, 1, 1, 8, 0, QXR_U8, 0, 255)                          \
    QXR_SHAPE("3x3 64 56x56 w8 i16", 64, 56, 56, 64, 3, 1, 1, 1, 1, 8, 0, QXR_I16, -3000, 3000)                  \
    QXR_SHAPE("3x3 16 32x32 w1a1", 16, 32, 32, 16, 3, 1, 1, 1, 1, 1, 2, QXR_U8, -1, 1)                           \
    QXR_SHAPE("3x3 128 28x28 w2a2", 128, 28, 28, 128, 3, 1, 1, 1, 1, 2, 0, QXR_U8, 0, 3)                         \
    QXR_SHAPE("3x3 256 14x14 w2a2", 256, 14, 14, 256, 3, 1, 1, 1, 1, 2, 0, QXR_U8, 0, 3)                         \
    QXR_SHAPE("3x3 512 7x7 w2a2", 512, 7, 7, 512, 3, 1, 1, 1, 1, 2, 0, QXR_U8, 0, 3)                             \
    QXR_SHAPE("3x3 s2 64-128 56x56 w2a2", 64, 56, 56, 128, 3, 2, 1, 1, 1, 2, 0, QXR_U8, 0, 3)                    \
    QXR_SHAPE("1x1 64-256 56x56 w2a2", 64, 56, 56, 256, 1, 1, 0, 1, 1, 2, 0, QXR_U8, 0, 3)                       \
    QXR_SHAPE("1x1 256-64 56x56 w2a2", 256, 56, 56, 64, 1, 1, 0, 1, 1, 2, 0, QXR_U8, 0, 3)                       \
    QXR_SHAPE("1x1 s2 256-512 28x28 w8a8", 256, 28, 28, 512, 1, 2, 0, 1, 1, 8, 0, QXR_U8, 0, 255)                \
    QXR_SHAPE("1x1 s2 64-128 56x56 w18 i16", 64, 56, 56, 128, 1, 2, 0, 1, 1, 18, 0, QXR_I16, -300, 300)          \
    QXR_SHAPE("5x5 32 28x28 w4a4", 32, 28, 28, 32, 5, 1, 2, 1, 1, 4, 0, QXR_U8, 0, 15)                           \
    QXR_SHAPE("7x7 s2 stem 3-64 224x224 w8", 3, 224, 224, 64, 7, 2, 3, 1, 1, 8, 0, QXR_U8, 0, 255)               \
    QXR_SHAPE("7x7 s2 stem 3-64 224x224 w18", 3, 224, 224, 64, 7, 2, 3, 1, 1, 18, 0, QXR_U8, 0, 255)             \
    QXR_SHAPE("11x11 s4 stem 3-64 224x224 w8", 3, 224, 224, 64, 11, 4, 2, 1, 1, 8, 0, QXR_U8, 0, 255)            \
    QXR_SHAPE("5x5 odd 7-19 17x18 w8a8", 7, 17, 18, 19, 5, 1, 2, 1, 1, 8, 0, QXR_U8, -100, 155)                  \
    QXR_SHAPE("3x3 odd 5-33 20x23 w20 i16", 5, 20, 23, 33, 3, 1, 1, 1, 1, 20, 0, QXR_I16, -90, 700)              \
    QXR_SHAPE("3x3 stem 3-16 32x32 w18", 3, 32, 32, 16, 3, 1, 1, 1, 1, 18, 0, QXR_U8, 0, 255)                    \
    QXR_SHAPE("3x3 depthwise 96 56x56 w8a8", 96, 56, 56, 96, 3, 1, 1, 1, 96, 8, 0, QXR_U8, 0, 255)               \
    QXR_SHAPE("3x3 depthwise s2 96 56x56 w4a4", 96, 56, 56, 96, 3, 2, 1, 1, 96, 4, 0, QXR_U8, -8, 7)             \
    QXR_SHAPE("5x5 depthwise 37 28x28 w8 i16", 37, 28, 28, 37, 5, 1, 2, 1, 37, 8, 0, QXR_I16, -3000, 3000)       \
    QXR_SHAPE("2x2 depthwise 3 9x9 w17", 3, 9, 9, 3, 2, 1, 1, 1, 3, 17, 0, QXR_U8, 0, 255)                       \
    QXR_SHAPE("3x3 groups of 8 64 28x28 w4a4", 64, 28, 28, 64, 3, 1, 1, 1, 8, 4, 0, QXR_U8, 0, 15)               \
    QXR_SHAPE("3x3 groups of 2 30-45 14x14 w8a8", 30, 14, 14, 45, 3, 1, 1, 1, 15, 8, 0, QXR_U8, 0, 255)          \
    QXR_SHAPE("3x3 multiplier 2 19-38 14x14 w8a8", 19, 14, 14, 38, 3, 1, 1, 1, 19, 8, 0, QXR_U8, 0, 255)         \
    QXR_SHAPE("3x3 dilated 256 19x19 w4a4", 256, 19, 19, 64, 3, 1, 6, 6, 1, 4, 0, QXR_U8, 0, 15)                 \
    QXR_SHAPE("3x3 odd 37-29 15x13 w3a3", 37, 15, 13, 29, 3, 1, 1, 1, 1, 3, 0, QXR_U8, -4, 3)                    \
    QXR_SHAPE("3x3 odd 5-7 6x11 w32", 5, 6, 11, 7, 3, 2, 1, 1, 1, 32, 0, QXR_U8, -17, 200)                       \
    QXR_SHAPE("3x3 odd 13-17 9x9 w12 i32", 13, 9, 9, 17, 3, 1, 1, 1, 1, 12, 0, QXR_I32, -70000, 70000)           \
    QXR_SHAPE("3x3 odd 13-17 9x9 w24 i32", 13, 9, 9, 17, 3, 1, 1, 1, 1, 24, 0, QXR_I32, -70000, 70000)           \
    QXR_SHAPE("1x1 33-50 9x9 w16 i16", 33, 9, 9, 50, 1, 1, 0, 1, 1, 16, 0, QXR_I16, -32768, 32767)               \
    QXR_SHAPE("2x2 s2 64-96 28x28 w4a4", 64, 28, 28, 96, 2, 2, 0, 1, 1, 4, 0, QXR_U8, 0, 15)                     \
    QXR_SHAPE("1x1 far from zero 24 9x9 w4", 24, 9, 9, 24, 1, 1, 0, 1, 1, 4, 0, QXR_U8, -5000, -4800)            \
    QXR_SHAPE("3x3 64 56x56 w1a2", 64, 56, 56, 64, 3, 1, 1, 1, 1, 1, 2, QXR_U8, 0, 3)                            \
    QXR_SHAPE("3x3 512 7x7 w1a2", 512, 7, 7, 512, 3, 1, 1, 1, 1, 1, 2, QXR_U8, 0, 3)                             \
    QXR_SHAPE("3x3 32 16x16 w1a1", 32, 16, 16, 32, 3, 1, 1, 1, 1, 1, 2, QXR_U8, 0, 1)                            \
    QXR_SHAPE("3x3 16 32x32 w1 one bit", 16, 32, 32, 16, 3, 1, 1, 1, 1, 1, 2, QXR_U8, 0, 1)                      \
    QXR_SHAPE("3x3 64 8x8 w1 one bit", 64, 8, 8, 64, 3, 1, 1, 1, 1, 1, 2, QXR_U8, 0, 1)                          \
    QXR_SHAPE("3x3 s2 16-32 32x32 w1 one bit", 16, 32, 32, 32, 3, 2, 1, 1, 1, 1, 2, QXR_U8, 0, 1)                \
    QXR_SHAPE("3x3 s2 32-64 15x13 w1 one bit", 32, 15, 13, 64, 3, 2, 1, 1, 1, 1, 2, QXR_U8, -1, 0)               \
    QXR_SHAPE("3x3 16 9x7 w1 one bit", 16, 9, 7, 16, 3, 1, 1, 1, 1, 1, 2, QXR_U8, -1, 0)                         \
    QXR_SHAPE("3x3 64 7x5 w1 one bit", 64, 7, 5, 64, 3, 1, 1, 1, 1, 1, 2, QXR_U8, -1, 0)                         \
    QXR_SHAPE("5x5 24-16 9x9 w1 one bit", 24, 9, 9, 16, 5, 1, 2, 1, 1, 1, 2, QXR_U8, 0, 1)                       \
    QXR_SHAPE("1x1 64-32 9x9 w1 one bit", 64, 9, 9, 32, 1, 1, 0, 1, 1, 1, 2, QXR_U8, 0, 1)                       \
    QXR_SHAPE("3x3 odd 34-41 13x11 w5 25", 34, 13, 11, 41, 3, 1, 1, 1, 1, 5, 0, QXR_U8, -10, 15)                 \
    QXR_SHAPE("3x3 64 56x56 w1 one bit", 64, 56, 56, 64, 3, 1, 1, 1, 1, 1, 2, QXR_U8, 0, 1)                      \
    QXR_SHAPE("3x3 256 14x14 w1 one bit", 256, 14, 14, 256, 3, 1, 1, 1, 1, 1, 2, QXR_U8, 0, 1)                   \
    QXR_SHAPE("3x3 dilated 20-90 w1 one bit", 20, 19, 19, 90, 3, 1, 2, 2, 1, 1, 2, QXR_U8, -1, 0)                \
    QXR_SHAPE("5x5 odd 13-27 9x9 w1 one bit", 13, 9, 9, 27, 5, 1, 2, 1, 1, 1, 2, QXR_U8, -1, 0)                  \
    QXR_SHAPE("linear 513-1000 w1 one bit", 513, 1, 1, 1000, 1, 1, 0, 1, 1, 1, 2, QXR_U8, 0, 1)                  \
    QXR_SHAPE("3x3 16-16 32x32 w2a2", 16, 32, 32, 16, 3, 1, 1, 1, 1, 2, 4, QXR_U8, 0, 3)                         \
    QXR_SHAPE("3x3 s2 4-11 odd steps w1a1", 4, 15, 13, 11, 3, 2, 1, 1, 1, 1, 2, QXR_U8, -1, 1)                   \
    QXR_SHAPE("3x3 dilated 20-90 w1a2", 20, 19, 19, 90, 3, 1, 2, 2, 1, 1, 2, QXR_U8, 0, 3)                       \
    QXR_SHAPE("5x5 12-200 ternary a2", 12, 9, 9, 200, 5, 1, 2, 1, 1, 2, 3, QXR_U8, -1, 2)                        \
    QXR_SHAPE("linear 512-1000 w1a2", 512, 1, 1, 1000, 1, 1, 0, 1, 1, 1, 2, QXR_U8, 0, 3)                        \
    QXR_SHAPE("linear 512-1000 w8a8", 512, 1, 1, 1000, 1, 1, 0, 1, 1, 8, 0, QXR_U8, 0, 255)                      \
    QXR_SHAPE("linear 4096-4096 w2a2", 4096, 1, 1, 4096, 1, 1, 0, 1, 1, 2, 0, QXR_U8, 0, 3)                      \
    QXR_SHAPE("linear 513-10 w8 i32", 513, 1, 1, 10, 1, 1, 0, 1, 1, 8, 0, QXR_I32, -100000, 100000)

/* The other operators, likewise: each kernel of an instruction set has at least one row.
 *
 * QXR_OPERATOR(name, opcode, flags, parameter, count, channels, height, width, storage of the input, window)
 *
 * The count of a rescale: bits of its multipliers, 0 for 17. */
#define QXR_OPERATORS(QXR_OPERATOR)                                                                              \
    QXR_OPERATOR("threshold 1", QXR_THRESHOLD, QXR_PER_CHANNEL, 0, 1, 64, 56, 56, QXR_I32, 0)                    \
    QXR_OPERATOR("threshold 3", QXR_THRESHOLD, QXR_PER_CHANNEL, 0, 3, 64, 56, 56, QXR_I32, 0)                    \
    QXR_OPERATOR("threshold 3 signs", QXR_THRESHOLD, QXR_PER_CHANNEL | QXR_SIGNS, 0, 3, 61, 56, 56, QXR_I32, 0)  \
    QXR_OPERATOR("threshold 3 shared", QXR_THRESHOLD, 0, 0, 3, 64, 56, 56, QXR_I32, 0)                           \
    QXR_OPERATOR("threshold 7 table", QXR_THRESHOLD, QXR_PER_CHANNEL | QXR_LEVEL_TABLE, 0, 7, 64, 56, 56, QXR_I32, 0) \
    QXR_OPERATOR("threshold 15", QXR_THRESHOLD, QXR_PER_CHANNEL, 0, 15, 64, 56, 56, QXR_I32, 0)                  \
    QXR_OPERATOR("threshold 15 table", QXR_THRESHOLD, QXR_PER_CHANNEL | QXR_LEVEL_TABLE, 0, 15, 64, 56, 56, QXR_I32, 0) \
    QXR_OPERATOR("threshold 255", QXR_THRESHOLD, QXR_PER_CHANNEL, 0, 255, 64, 56, 56, QXR_I32, 0)                \
    QXR_OPERATOR("rescale", QXR_RESCALE, QXR_PER_CHANNEL, 20, 0, 64, 56, 56, QXR_I32, 0)                         \
    QXR_OPERATOR("rescale by 10 bits", QXR_RESCALE, QXR_PER_CHANNEL, 0, 10, 64, 56, 56, QXR_I32, 0)              \
    QXR_OPERATOR("rescale shared 13", QXR_RESCALE, 0, 32, 0, 13, 56, 56, QXR_I32, 0)                             \
    QXR_OPERATOR("rescale of 40", QXR_RESCALE, 0, 40, 0, 13,     56, 56, QXR_I32, 0)                             \
    QXR_OPERATOR("rescale beyond 32 bits", QXR_RESCALE, QXR_PER_CHANNEL, 0, 0, 61, 56, 56, QXR_I32, 0)           \
    QXR_OPERATOR("border bias", QXR_BORDER_BIAS, 0, 0, 0, 64, 56, 56, QXR_I32, 0)                                \
    QXR_OPERATOR("add", QXR_ADD, 0, 0, 0, 64, 56, 56, QXR_I32, 0)                                                \
    QXR_OPERATOR("clip", QXR_CLIP, 0, 0, 0, 64, 56, 56, QXR_I32, 0)                                              \
    QXR_OPERATOR("max pool 3x3 u8", QXR_MAX_POOL, 0, 0, 0, 64, 112, 112, QXR_U8, 3)                              \
    QXR_OPERATOR("max pool 2x2 i16", QXR_MAX_POOL, 0, 0, 0, 61, 56, 56, QXR_I16, 2)                              \
    QXR_OPERATOR("sum pool 7x7 u8", QXR_SUM_POOL, 0, 0, 0, 512, 7, 7, QXR_U8, 7)                                 \
    QXR_OPERATOR("sum pool 3x3 i32", QXR_SUM_POOL, 0, 0, 0, 13, 28, 28, QXR_I32, 3)                              \
    QXR_OPERATOR("reshape to a line u8", QXR_RESHAPE, 0, 0, 0, 64, 28, 28, QXR_U8, 0)                            \
    QXR_OPERATOR("transpose i16", QXR_TRANSPOSE, 0, 6, 0, 64, 28, 28, QXR_I16, 0)                  \
    QXR_OPERATOR("l2 norm i16", QXR_L2_NORM, 0, 0, 0, 512, 38, 38, QXR_I16, 0)
