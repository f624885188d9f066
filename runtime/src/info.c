/* What a checked model says about itself. A model that qxr_open refused has nothing. */
#include "format.h"

static int is_open(const qxr_model *model) { return model != NULL && model->bytes != NULL; }

uint32_t qxr_input_count(const qxr_model *model) { return is_open(model) ? qxr_get_header(model)->input_count : 0u; }

uint32_t qxr_output_count(const qxr_model *model) { return is_open(model) ? qxr_get_header(model)->output_count : 0u; }

uint32_t qxr_tensor_count(const qxr_model *model) { return is_open(model) ? qxr_get_header(model)->tensor_count : 0u; }

qxr_status qxr_tensor_info_at(const qxr_model *model, uint32_t index, qxr_tensor_info *info)
{
    const qxr_tensor *t;
    if (info == NULL || index >= qxr_tensor_count(model))
        return QXR_ERROR_ARGUMENT;
    t = qxr_get_tensor(model, index);
    info->rank = qxr_rank(t);
    info->elements = 1;
    for (uint32_t axis = 0; axis < 3; axis++) {
        info->extent[axis] = t->extent[axis];
        info->elements *= t->extent[axis];
    }
    info->lo = t->lo;
    info->hi = t->hi;
    info->index = index;
    return QXR_OK;
}

qxr_status qxr_input_info(const qxr_model *model, uint32_t index, qxr_tensor_info *info)
{
    return index < qxr_input_count(model) ? qxr_tensor_info_at(model, index, info) : QXR_ERROR_ARGUMENT;
}

qxr_status qxr_output_info(const qxr_model *model, uint32_t index, qxr_tensor_info *info)
{
    if (index >= qxr_output_count(model))
        return QXR_ERROR_ARGUMENT;
    return qxr_tensor_info_at(model, qxr_get_outputs(model)[index], info);
}

qxr_status qxr_metadata(const qxr_model *model, const uint8_t **bytes, size_t *size)
{
    if (!is_open(model) || bytes == NULL || size == NULL)
        return QXR_ERROR_ARGUMENT;
    *bytes = model->bytes + qxr_get_header(model)->metadata_offset;
    *size = model->size - qxr_get_header(model)->metadata_offset;
    return QXR_OK;
}
