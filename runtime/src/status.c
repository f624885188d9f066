/* What each status means, for people. */
#include "qxr.h"

static const char *const texts[QXR_STATUS_COUNT] = {
    [QXR_OK] = "success",
    [QXR_ERROR_ARGUMENT] = "an argument is null or out of range",
    [QXR_ERROR_BIG_ENDIAN] = "this processor is big-endian; packed files are read on little-endian ones only",
    [QXR_ERROR_ALIGNMENT] = "the file must lie at a multiple of 8 bytes, arena and prepacked weights at one of 64",
    [QXR_ERROR_TRUNCATED] = "the file is shorter than its header says",
    [QXR_ERROR_MAGIC] = "this is no .qpk file, or a transfer in text mode broke it",
    [QXR_ERROR_VERSION] = "the file has a major version that this library does not read",
    [QXR_ERROR_CRC] = "the file is damaged: its checksum differs",
    [QXR_ERROR_FEATURE] = "the file needs a feature this library lacks, or its feature bits are not those that occur",
    [QXR_ERROR_HEADER] = "counts or sizes in the header contradict each other",
    [QXR_ERROR_LAYOUT] = "a section or constant is not where it must be, or has another size",
    [QXR_ERROR_PADDING] = "a reserved field, padding byte or unused bit is not zero",
    [QXR_ERROR_TENSOR] = "a tensor record has an invalid rank, extent, storage or range",
    [QXR_ERROR_OPCODE] = "unknown operator, or unknown version of one",
    [QXR_ERROR_OPERATOR] = "a parameter of an operator is out of range",
    [QXR_ERROR_INPUT] = "an operator reads a tensor that no earlier operator makes",
    [QXR_ERROR_SHAPE] = "the extents of a result are not those its operator gives",
    [QXR_ERROR_WEIGHTS] = "a weight, weight code or codebook is out of range",
    [QXR_ERROR_CONSTANTS] = "thresholds do not ascend, or a level, multiplier, addend or border class is out of range",
    [QXR_ERROR_RANGE] = "a claimed range does not follow from the ranges of the operator's inputs",
    [QXR_ERROR_ACCUMULATOR] = "an accumulator could leave 32 bits",
    [QXR_ERROR_GROUP] = "an operator cannot join its group, or a slot is overwritten before it is read",
    [QXR_ERROR_ARENA] = "a tensor lies outside the arena, or over another one that is alive",
    [QXR_ERROR_LIFETIME] = "a tensor's last use is wrong, or a virtual tensor is read outside its group",
    [QXR_ERROR_OUTPUT] = "an output of the network does not exist or is virtual",
    [QXR_ERROR_METADATA] = "the metadata is not where it must be, or is neither a JSON object nor zlib data",
    [QXR_ERROR_LIMIT] = "the operators have so many channels that checking the file could take minutes",
    [QXR_ERROR_ISA] = "this build has no kernels for that instruction set, or this processor does not have it",
    [QXR_ERROR_ARENA_SIZE] = "the arena is too small",
    [QXR_ERROR_PREPACK_SIZE] = "the buffer for prepacked weights is too small",
};

const char *qxr_status_text(qxr_status status)
{
    const uint32_t index = (uint32_t)status;
    return index < QXR_STATUS_COUNT ? texts[index] : "unknown status";
}
