// How a linear layer is cut into work, the same for fp32 and int8.
//
// A weight is packed in panels of PANEL output columns. A block of up to MAX_ROWS rows keeps its sums for one panel in
// registers; all rows pass over a panel while it is in the cache, and meanwhile the next panel is fetched from memory.
// Threads share the panels out: a column is always computed by one thread, whatever the number of rows.
#pragma once
#ifdef _OPENMP
#include <omp.h>
#endif
#include "common.h"

constexpr int VECTORS = 3, PANEL = VECTORS * LANES;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int MAX_ROWS = 8;  // 8 x 3 sums of the 32 vector registers
#else
constexpr int MAX_ROWS = 4;  // 4 x 3 of 16
#endif

// A share of the next panel, fetched a little at each step over the present one.
struct Ahead {
    const char *at;
    int64_t bytes_a_step;
    void fetch() {
        for (int64_t i = 0; i < bytes_a_step; i += 64) __builtin_prefetch(at + i, 0, 2);
        at += bytes_a_step;
    }
};

// Calls block(panel, first_row, rows, ahead) for each panel and each block of rows, rows divided evenly.
// steps: how often a block calls ahead.fetch().
template <class Block>
void for_each_block(const char *packed, int64_t panels, int64_t panel_bytes, int64_t steps, int64_t rows, Block block) {
    if (rows == 0) return;  // a step in which nobody's prompt ends wants no logits
    const int64_t row_blocks = (rows + MAX_ROWS - 1) / MAX_ROWS;
#ifdef _OPENMP
    const int64_t team = omp_get_num_threads(), member = omp_get_thread_num();
#else
    const int64_t team = 1, member = 0;
#endif
    const int64_t a_step = (panel_bytes / (row_blocks * steps) + 63) / 64 * 64;
    for (int64_t p = panels * member / team; p < panels * (member + 1) / team; p++) {
        Ahead ahead{packed + (p + 1) * panel_bytes, a_step};
        for (int64_t b = 0; b < row_blocks; b++) {
            const int64_t first = rows * b / row_blocks;
            block(p, first, int(rows * (b + 1) / row_blocks - first), ahead);
        }
    }
}

// Stores the first `columns` (at most PANEL) of one row's results.
static inline void store_row(const vf (&row)[VECTORS], float *out, int64_t columns) {
    if (columns >= PANEL)
        for (int v = 0; v < VECTORS; v++) store(out + v * LANES, row[v]);
    else
        std::memcpy(out, row, columns * sizeof(float));
}
