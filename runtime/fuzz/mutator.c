/* The mutator: one to four changes to the records, constants or graph of a packed file, then some repairs. Without the
 * right checksum no change would get past the first check. */
#include <string.h>

#include "pieces.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

static uint32_t next(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static uint32_t below(uint32_t *state, uint32_t limit) { return limit ? next(state) % limit : 0; }

static uint32_t interesting(uint32_t *state, uint32_t old)
{
    static const uint32_t edges[] = {0,      7,      8,      15,      16,      31,      32,      63,         64,
                                     127,    128,    255,    256,     257,     0x7FFF,  0x8000,  65534,      0xFFFF,
                                     0x10000, 1 << 29, 1 << 30, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF};
    switch (below(state, 6)) {
    case 0:
        return edges[below(state, sizeof edges / sizeof *edges)];
    case 1:
        return old + 1u;
    case 2:
        return old - 1u;
    case 3:
        return old ^ 1u << below(state, 32);
    case 4:
        return next(state) >> below(state, 32);
    default:
        return below(state, 6);
    }
}

/* Changes a little-endian number of 1, 2 or 4 bytes. */
static void change_number(uint32_t *state, uint8_t *at, uint32_t width)
{
    uint32_t value = 0;
    memcpy(&value, at, width);
    value = interesting(state, value);
    memcpy(at, &value, width);
}

static void change_op(uint32_t *state, pieces *p, uint32_t k)
{
    static const struct {
        uint8_t offset, width;
    } fields[] = {{0, 1},  {1, 1},  {2, 1},  {3, 1},  {4, 2},  {6, 2},  {16, 2}, {18, 2}, {20, 2}, {22, 2},
                  {24, 2}, {26, 2}, {28, 2}, {30, 2}, {32, 2}, {34, 2}, {36, 2}, {38, 2}, {40, 4}, {44, 4}};
    const uint32_t i = below(state, sizeof fields / sizeof *fields);
    uint8_t *op = (uint8_t *)&p->ops[k];
    const uint8_t *other;
    switch (below(state, 4)) {
    case 0: /* the same field of another operator */
        other = (const uint8_t *)&p->ops[below(state, p->op_count)];
        memcpy(op + fields[i].offset, other + fields[i].offset, fields[i].width);
        break;
    case 1: /* geometry of a plausible size */
        p->ops[k].window[below(state, 2)] = (uint16_t)(1 + below(state, 4));
        p->ops[k].padding[below(state, 4)] = (uint16_t)below(state, 3);
        p->ops[k].stride[below(state, 2)] = (uint16_t)(1 + below(state, 3));
        break;
    case 2:
        p->ops[k].input[below(state, 2)] = (uint16_t)below(state, p->input_count + k);
        break;
    default:
        change_number(state, op + fields[i].offset, fields[i].width);
    }
}

static void change_tensor(uint32_t *state, pieces *p, uint32_t t)
{
    static const struct {
        uint8_t offset, width;
    } fields[] = {{0, 1}, {1, 1}, {2, 2}, {4, 4}, {8, 4}, {12, 4}, {16, 4}, {20, 4}, {24, 4}};
    const uint32_t i = below(state, sizeof fields / sizeof *fields);
    if (below(state, 3) == 0)
        p->tensors[t].arena_offset = p->tensors[below(state, p->tensor_count)].arena_offset;
    else if (below(state, 3) == 0)
        p->tensors[t].extent[below(state, 3)] = 1 + below(state, 20);
    else
        change_number(state, (uint8_t *)&p->tensors[t] + fields[i].offset, fields[i].width);
}

static void change_blob(uint32_t *state, pieces *p, blob b)
{
    static const uint8_t widths[] = {1, 2, 4};
    const uint32_t width = widths[below(state, 3)];
    uint32_t at;
    if (b.size < width)
        return;
    at = below(state, b.size - width + 1u);
    change_number(state, p->pool + b.offset + (below(state, 4) ? at / width * width : at), width);
}

/* One more operator at the end, an output of the network: a copy of another, reading what that read or any tensor. */
static void append_op(uint32_t *state, pieces *p)
{
    const uint32_t from = below(state, p->op_count), k = p->op_count, t = p->tensor_count;
    if (t >= MAX_PIECES || p->op_count == 0)
        return;
    p->ops[k] = p->ops[from];
    p->constants[k] = p->constants[from];
    p->tensors[t] = p->tensors[p->input_count + from];
    p->ranges[t] = p->ranges[p->input_count + from];
    if (below(state, 2))
        p->ops[k].input[0] = (uint16_t)below(state, t);
    if (qxr_storage(&p->tensors[t]) == QXR_VIRTUAL)
        p->tensors[t].storage_slot |= QXR_I32;
    p->op_count++;
    p->tensor_count++;
    p->outputs[below(state, p->output_count)] = (uint16_t)t;
}

static void remove_last_op(uint32_t *state, pieces *p)
{
    if (p->op_count < 2)
        return;
    p->op_count--;
    p->tensor_count--;
    for (uint32_t i = 0; i < p->output_count; i++)
        if (p->outputs[i] >= p->tensor_count)
            p->outputs[i] = (uint16_t)below(state, p->tensor_count);
}

static void change_output(uint32_t *state, pieces *p)
{
    if (p->output_count < MAX_PIECES && below(state, 3) == 0)
        p->outputs[p->output_count++] = (uint16_t)below(state, p->tensor_count);
    else
        p->outputs[below(state, p->output_count)] = (uint16_t)below(state, p->tensor_count);
}

static void change(uint32_t *state, pieces *p)
{
    const uint32_t k = below(state, p->op_count), t = below(state, p->tensor_count);
    switch (below(state, 16)) {
    case 0:
    case 1:
    case 2:
        change_tensor(state, p, t);
        break;
    case 3:
        change_blob(state, p, p->ranges[t]);
        break;
    case 4:
        append_op(state, p);
        break;
    case 5:
        remove_last_op(state, p);
        break;
    case 6:
        change_output(state, p);
        break;
    case 7:
        p->ops[k].flags ^= QXR_JOINS;
        break;
    case 8:
        change_number(state, (uint8_t *)&p->header + 8 + below(state, 14) * 4, 4);
        break;
    case 9:
    case 10:
    case 11:
        change_blob(state, p, p->constants[k]);
        break;
    default:
        change_op(state, p, k);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
    static pieces p; /* too large for the stack of every worker */
    uint32_t state = seed | 1u, repairs = 0;
    qxr_model model;
    size_t made;
    if (below(&state, 16) == 0 || !pieces_parse(&p, data, size) || p.op_count == 0 || p.output_count == 0) {
        size = LLVMFuzzerMutate(data, size, max_size);
        if (size >= sizeof(qxr_header) && below(&state, 8) != 0) {
            const uint32_t whole = (uint32_t)size;
            memcpy(data + offsetof(qxr_header, file_size), &whole, 4);
            seal(data, size);
        }
        return size;
    }
    for (uint32_t changes = 1 + below(&state, 4); changes > 0; changes--)
        change(&state, &p);
    made = pieces_emit(&p, data, max_size);
    if (below(&state, 4) != 0)
        repairs = 2 * p.tensor_count;
    while (made > 0 && repairs-- > 0) {
        const qxr_status status = qxr_open(data, made, &model);
        if (status == QXR_OK || !pieces_repair(&p, status, model.failed_at))
            break;
        made = pieces_emit(&p, data, max_size);
    }
    return made > 0 ? made : LLVMFuzzerMutate(data, size, max_size);
}
