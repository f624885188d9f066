/* Models of one operator other than a convolution, made in memory from a row of the table. */
#ifndef QXR_OP_MODEL_H
#define QXR_OP_MODEL_H

#include "kernels.h"

typedef struct qxr_op_row {
    const char *name;
    uint32_t opcode, flags, parameter, count, channels, height, width, storage, window;
} qxr_op_row;

typedef struct qxr_op_model {
    qxr_model model;
    qxr_work work;  /* all but the operands of elementwise operators */
    uint8_t *bytes; /* of the model */
    uint8_t *input; /* the stored input, or the operands' values [2][pixels][channels] of an elementwise operator */
} qxr_op_model;

void qxr_make_op_model(const qxr_op_row *row, qxr_op_model *made);
void qxr_free_op_model(qxr_op_model *made);

#endif
