/* Which chains end in few thresholds and bytes, in a form that avx2_chain_bytes.c computes. */
#include "x86/avx2_chain_bytes.h"

/* A tensor of the chain, with the operator that made it unless that is the group's first, or none of the group. */
static qxr_work work_of(const qxr_chain *chain, uint32_t tensor)
{
    const uint32_t made = qxr_get_header(chain->model)->input_count + chain->group;
    const qxr_tensor *out = qxr_get_tensor(chain->model, tensor);
    qxr_work work = {chain->model, NULL, {NULL, NULL}, out, chain->arena, {NULL, NULL}};
    if (tensor > made) {
        work.op = qxr_get_op(chain->model, tensor - made + chain->group);
        work.in[0] = qxr_get_tensor(chain->model, work.op->input[0]);
        if (work.op->opcode == QXR_ADD)
            work.in[1] = qxr_get_tensor(chain->model, work.op->input[1]);
    }
    return work;
}

static int has_few_steps(const qxr_work *work)
{
    const qxr_op *op = work->op;
    const int turned = op->opcode == QXR_THRESHOLD && op->flags & QXR_SIGNS;
    return op->opcode == QXR_THRESHOLD && (op->count == 1u || op->count == 3u) && !(op->flags & QXR_LEVEL_TABLE) &&
           op->second == 1 && qxr_storage(work->out) == QXR_U8 &&
           (!turned || (work->in[0]->lo > INT32_MIN && work->in[0]->hi < INT32_MAX));
}

/* A tensor as it is, or the operator of the chain that makes it of another, `raw`. */
static void find_summand(const qxr_chain *chain, uint32_t tensor, qxr_work *work, uint32_t *raw)
{
    *work = work_of(chain, tensor);
    *raw = work->op ? work->op->input[0] : tensor;
}

/* A rescale that never clamps, as proven ranges show, or nothing. */
static int is_plain_rescale(const qxr_work *work)
{
    return !work->op || (work->op->opcode == QXR_RESCALE && work->op->parameter < 32u &&
                         work->out->lo > work->op->first && work->out->hi < work->op->second);
}

static int is_plain_sum(const qxr_byte_chain *found)
{
    const qxr_work *other = &found->rescale[1];
    if (found->is_stream)
        return qxr_storage(found->sum.out) == QXR_I32 && (!other->op || other->op->opcode == QXR_CLIP);
    return is_plain_rescale(other);
}

int qxr_find_byte_chain(const qxr_chain *chain, qxr_byte_chain *found)
{
    const uint32_t inputs = qxr_get_header(chain->model)->input_count, made = inputs + chain->group;
    uint32_t raw = made, other = made, operators = 2, stored = 0;
    qxr_work sum;
    if (chain->first == chain->group || chain->first == chain->end)
        return 0;
    found->threshold = work_of(chain, inputs + chain->end - 1u);
    sum = work_of(chain, found->threshold.op->input[0]);
    if (!has_few_steps(&found->threshold))
        return 0;
    for (uint32_t k = chain->first; k + 1u < chain->end; k++)
        stored += qxr_storage(qxr_get_tensor(chain->model, inputs + k)) != QXR_VIRTUAL;
    found->made = qxr_get_tensor(chain->model, made);
    found->sum = sum;
    found->other = NULL;
    found->is_stream = 0;
    found->is_wide = sum.op != NULL;
    if (!sum.op)
        return found->threshold.op->input[0] == made && chain->end - chain->first == 1u;
    find_summand(chain, sum.op->input[0], &found->rescale[0], &raw);
    if (sum.op->opcode == QXR_ADD) {
        find_summand(chain, sum.op->input[1], &found->rescale[1], &other);
        if (other == made) {
            const qxr_work first = found->rescale[0];
            found->rescale[0] = found->rescale[1];
            found->rescale[1] = first;
            other = raw;
            raw = made;
        }
        found->other = qxr_get_tensor(chain->model, other);
        found->is_wide = !qxr_fits_words(sum.in[0]) || !qxr_fits_words(sum.in[1]);
        operators += found->rescale[1].op != NULL;
        found->is_stream = qxr_storage(found->other) == QXR_I32;
        if (other >= made || !is_plain_sum(found))
            return 0;
    } else if (sum.op->opcode != QXR_BORDER_BIAS || qxr_shift_of(&found->rescale[0])) {
        return 0;
    }
    operators += found->rescale[0].op != NULL;
    return raw == made && is_plain_rescale(&found->rescale[0]) && stored == (uint32_t)found->is_stream &&
           operators == chain->end - chain->first;
}
