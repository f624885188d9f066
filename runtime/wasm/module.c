/* The runtime as a WebAssembly module: what qxr.js calls.
 *
 * An instance of the module holds one model. All memory behind `__heap_base` belongs to the caller, who lays the file,
 * the packed weights, the arena, inputs and outputs there; so the module needs no allocator, and an instance that is
 * dropped is freed. */
#include "qxr.h"

#define EXPORT(name) __attribute__((export_name(name)))

static qxr_model model;

enum field { RANK, EXTENT_0, EXTENT_1, EXTENT_2, ELEMENTS, LO, HI, INDEX };

static uint32_t field_of(const qxr_tensor_info *info, uint32_t field)
{
    switch (field) {
    case RANK:
        return info->rank;
    case EXTENT_0:
    case EXTENT_1:
    case EXTENT_2:
        return info->extent[field - EXTENT_0];
    case ELEMENTS:
        return info->elements;
    case LO:
        return (uint32_t)info->lo;
    case HI:
        return (uint32_t)info->hi;
    default:
        return info->index;
    }
}

EXPORT("open") qxr_status open_model(const uint8_t *bytes, size_t size) { return qxr_open(bytes, size, &model); }
EXPORT("failed_at") uint32_t failed_at(void) { return model.failed_at; }
EXPORT("status_text") const char *status_text(qxr_status status) { return qxr_status_text(status); }

EXPORT("input_count") uint32_t input_count(void) { return qxr_input_count(&model); }
EXPORT("output_count") uint32_t output_count(void) { return qxr_output_count(&model); }
EXPORT("tensor_count") uint32_t tensor_count(void) { return qxr_tensor_count(&model); }

EXPORT("input") uint32_t input(uint32_t index, uint32_t field)
{
    qxr_tensor_info info = {0};
    (void)qxr_input_info(&model, index, &info);
    return field_of(&info, field);
}

EXPORT("output") uint32_t output(uint32_t index, uint32_t field)
{
    qxr_tensor_info info = {0};
    (void)qxr_output_info(&model, index, &info);
    return field_of(&info, field);
}

EXPORT("metadata") const uint8_t *metadata(void)
{
    const uint8_t *bytes = NULL;
    size_t size;
    (void)qxr_metadata(&model, &bytes, &size);
    return bytes;
}

EXPORT("metadata_size") size_t metadata_size(void)
{
    const uint8_t *bytes;
    size_t size = 0;
    (void)qxr_metadata(&model, &bytes, &size);
    return size;
}

EXPORT("select_isa") qxr_status select_isa(const char *name) { return qxr_select_isa(&model, name); }
EXPORT("selected_isa") const char *selected_isa(void) { return qxr_selected_isa(&model); }
EXPORT("prepack_size") size_t prepack_size(void) { return qxr_prepack_size(&model); }
EXPORT("prepack") qxr_status prepack(void *buffer, size_t size) { return qxr_prepack(&model, buffer, size); }
EXPORT("arena_size") size_t arena_size(void) { return qxr_arena_size(&model, 1); }

EXPORT("run") qxr_status run(void *arena, size_t size, const uint8_t *const inputs[], int32_t *const outputs[])
{
    return qxr_run(&model, arena, size, inputs, outputs, NULL);
}
