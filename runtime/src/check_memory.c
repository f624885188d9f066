#include "check.h"

/* A file of a few kilobytes must not keep its reader busy for hours. */
qxr_status qxr_spend(qxr_check *c, uint64_t channels)
{
    if (channels > QXR_MAX_EFFORT - c->effort)
        return QXR_ERROR_LIMIT;
    c->effort += (uint32_t)channels;
    return QXR_OK;
}

/* Operator node->index reads tensor `read`: one made before, still alive, and where it is looked for. */
static qxr_status check_read(const qxr_check *c, const qxr_node *node, uint32_t read)
{
    const uint32_t inputs = c->header->input_count;
    const qxr_tensor *t = qxr_get_tensor(c->model, read);
    if (read >= inputs + node->index)
        return QXR_ERROR_INPUT;
    if (t->last_use < node->index)
        return QXR_ERROR_LIFETIME;
    if (read >= inputs + c->group_first) /* made in this group */
        return c->slot_owner[qxr_slot(t)] == read ? QXR_OK : QXR_ERROR_GROUP;
    return qxr_storage(t) == QXR_VIRTUAL ? QXR_ERROR_LIFETIME : QXR_OK;
}

/* Starts or continues a group. */
static qxr_status check_group(qxr_check *c, const qxr_node *node)
{
    if (!(node->op->flags & QXR_JOINS)) {
        c->group_first = node->index;
        for (uint32_t i = 0; i < QXR_SLOTS; i++)
            c->slot_owner[i] = QXR_NONE32;
        return QXR_OK;
    }
    if (node->index == 0 || !qxr_is_elementwise(node->op))
        return QXR_ERROR_GROUP;
    for (uint32_t axis = 0; axis < 3; axis++)
        if (node->out->extent[axis] != node->out[-1].extent[axis])
            return QXR_ERROR_GROUP;
    return QXR_OK;
}

qxr_status qxr_check_reads(qxr_check *c, const qxr_node *node)
{
    const uint16_t *inputs;
    const uint32_t count = qxr_inputs_of(c->model, node->op, &inputs);
    QXR_TRY(check_group(c, node));
    QXR_TRY(qxr_spend(c, node->out->extent[0]));
    for (uint32_t i = 0; i < count; i++) {
        QXR_TRY(check_read(c, node, inputs[i]));
        QXR_TRY(qxr_spend(c, qxr_get_tensor(c->model, inputs[i])->extent[0]));
    }
    c->slot_owner[qxr_slot(node->out)] = c->at;
    return QXR_OK;
}

/* Every output exists, is stored and says that it lives to the end. */
qxr_status qxr_check_outputs(const qxr_check *c)
{
    const uint16_t *outputs = qxr_get_outputs(c->model);
    for (uint32_t i = 0; i < c->header->output_count; i++) {
        if (outputs[i] >= c->header->tensor_count)
            return QXR_ERROR_OUTPUT;
        if (qxr_storage(qxr_get_tensor(c->model, outputs[i])) == QXR_VIRTUAL)
            return QXR_ERROR_OUTPUT;
        if (qxr_get_tensor(c->model, outputs[i])->last_use != c->header->op_count)
            return QXR_ERROR_LIFETIME;
    }
    return QXR_OK;
}

static int reads(const qxr_model *model, uint32_t op_index, uint32_t tensor)
{
    const uint16_t *inputs;
    const uint32_t count = qxr_inputs_of(model, qxr_get_op(model, op_index), &inputs);
    for (uint32_t i = 0; i < count; i++)
        if (inputs[i] == tensor)
            return 1;
    return 0;
}

static int is_output(const qxr_check *c, uint32_t tensor)
{
    for (uint32_t i = 0; i < c->header->output_count; i++)
        if (qxr_get_outputs(c->model)[i] == tensor)
            return 1;
    return 0;
}

/* No operator behind the last use reads the tensor: check_read saw to that. Here: it is a use. */
static int last_use_is_exact(const qxr_check *c, uint32_t tensor)
{
    const uint32_t inputs = c->header->input_count, last = qxr_get_tensor(c->model, tensor)->last_use;
    if (last == (tensor < inputs ? 0u : tensor - inputs)) /* nothing reads it, or operator 0 an input */
        return 1;
    if (last >= c->header->op_count)
        return last == c->header->op_count && is_output(c, tensor);
    return reads(c->model, last, tensor);
}

static int share_bytes(const qxr_tensor *a, const qxr_tensor *b)
{
    const uint64_t a_end = a->arena_offset + qxr_elements64(a) * qxr_element_bytes(a);
    const uint64_t b_end = b->arena_offset + qxr_elements64(b) * qxr_element_bytes(b);
    return a->arena_offset < b_end && b->arena_offset < a_end;
}

/* Whether the result of operator `op_index`, in the group from c->group_first on, may lie where tensor `under` lies,
 * which is alive in that group. Only the first operator of a group reads other pixels than it writes. */
static int may_overwrite(const qxr_check *c, uint32_t op_index, uint32_t under)
{
    const qxr_tensor *t = qxr_get_tensor(c->model, under);
    const qxr_tensor *over = qxr_get_tensor(c->model, c->header->input_count + op_index);
    for (uint32_t axis = 0; axis < 3; axis++)
        if (t->extent[axis] != over->extent[axis])
            return 0;
    if (t->arena_offset != over->arena_offset || qxr_element_bytes(t) != qxr_element_bytes(over))
        return 0;
    if (t->last_use > op_index)
        return 0;
    if (under >= c->header->input_count + c->group_first) /* made in this group, so its first operator cannot read it */
        return 1;
    return qxr_is_elementwise(qxr_get_op(c->model, c->group_first)) || !reads(c->model, c->group_first, under);
}

/* Compares a tensor with every earlier one that is alive when its group starts. */
static qxr_status check_overlaps(const qxr_check *c, uint32_t tensor)
{
    const uint32_t inputs = c->header->input_count;
    const qxr_tensor *t = qxr_get_tensor(c->model, tensor);
    for (uint32_t other = 0; other < tensor; other++) {
        const qxr_tensor *o = qxr_get_tensor(c->model, other);
        if (o->arena_offset == QXR_NONE32 || (tensor >= inputs && o->last_use < c->group_first) || !share_bytes(o, t))
            continue;
        if (tensor < inputs || !may_overwrite(c, tensor - inputs, other))
            return QXR_ERROR_ARENA;
    }
    return QXR_OK;
}

qxr_status qxr_check_arena(qxr_check *c)
{
    const uint32_t inputs = c->header->input_count;
    c->group_first = 0;
    for (c->at = 0; c->at < c->header->tensor_count; c->at++) {
        if (c->at >= inputs && !(qxr_get_op(c->model, c->at - inputs)->flags & QXR_JOINS))
            c->group_first = c->at - inputs;
        if (!last_use_is_exact(c, c->at))
            return QXR_ERROR_LIFETIME;
        if (qxr_storage(qxr_get_tensor(c->model, c->at)) != QXR_VIRTUAL)
            QXR_TRY(check_overlaps(c, c->at));
    }
    return QXR_OK;
}
