/* What the rows of a batch have in common, computed once: the patch embedding of every noised input, the embedding of every
 * time, and the adaLN modulation of every pair of time and class.  Classes asked at one (image, t, eps) are neighbours that
 * share the first two; images asked at one trial share the third. */
#ifndef DC_DIT_SHARED_H
#define DC_DIT_SHARED_H

#include "dit/dit.h"

struct dc_dit_shared {
    int64_t max_rows;
    int64_t n_times, n_pairs, n_inputs;
    double *times;                         /* (n_times,) all different */
    int64_t *time_of_pair, *class_of_pair; /* (n_pairs,) */
    int64_t *previous_pair;                /* (n_pairs,) the one before it of the same class, or -1 */
    int64_t *last_pair;                    /* (num_classes,) where those begin; of the batch's classes alone */
    int64_t *pair_of_row, *input_of_row;   /* (n_rows,) */
    int64_t *row_of_input;                 /* (n_inputs,) the first row that has it */
    float *embedded;                       /* (n_inputs, T, D) */
    float *modulation;                     /* (depth, max_rows, 6 D), then (max_rows, 2 D): a row each pair */
};

DC_MUST_USE dc_status dc_dit_shared_init(dc_dit_shared *shared, const dc_dit *model, int64_t max_rows, dc_error *err);
void dc_dit_shared_clear(dc_dit_shared *shared);

/* Finds what differs in n_rows <= max_rows rows: x_t (n_rows, n_elem), time and class_labels (n_rows,). */
void dc_dit_shared_find(dc_dit_shared *shared, const float *x_t, const double *time, const int64_t *class_labels,
                        int64_t n_rows, int64_t n_elem);

/* One of n_shares equal parts of embedded and modulation; x_t as above. */
void dc_dit_shared_compute(dc_dit_shared *shared, const dc_dit *model, const dc_backend *backend,
                           dc_dit_workspace *workspace, const float *x_t, int64_t share, int64_t n_shares);

/* The modulation of block i, or for i = depth the final layer's. */
float *dc_dit_shared_modulation(const dc_dit_shared *shared, const dc_dit *model, int64_t i);

#endif
