// How a linear layer is cut into work, the same for fp32 and int8.
//
// A weight is packed in panels of PANEL output columns. A block of up to MAX_ROWS rows keeps its sums for one panel in
// registers; all rows pass over a panel while it is in the cache, and meanwhile the next panel is fetched from memory.
// Threads share the panels out: a column is always computed by one thread, whatever the number of rows. One that is done
// helps the others: a core may have been taken away from them for a while (the server's own event loop does that).
#pragma once
#include <atomic>
#include <vector>
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

// The panels of one layer, a stretch for each thread: neighbours, so that the next one can be fetched ahead.
class Shares {
    struct alignas(64) Stretch {
        std::atomic<int64_t> next;
        int64_t end;
    };
    std::vector<Stretch> stretches;

public:
    Shares(int64_t panels, int threads) : stretches(threads) {
        for (int64_t t = 0; t < threads; t++) {
            stretches[t].next.store(panels * t / threads, std::memory_order_relaxed);
            stretches[t].end = panels * (t + 1) / threads;
        }
    }

    // Calls work(panel) for the panels of the calling thread's stretch, then for what is left of the others'.
    template <class Work>
    void take(Work work) {
        const int64_t team = int64_t(stretches.size());
#ifdef _OPENMP
        const int64_t own = omp_get_thread_num();
#else
        const int64_t own = 0;
#endif
        for (int64_t t = 0; t < team; t++) {
            Stretch &stretch = stretches[(own + t) % team];
            for (int64_t p; (p = stretch.next.fetch_add(1, std::memory_order_relaxed)) < stretch.end;) work(p);
        }
    }
};

// Calls block(panel, first_row, rows, ahead) for each panel and each block of rows, rows divided evenly.
// steps: how often a block calls ahead.fetch(). All threads of a team call it with the same `shares`.
template <class Block>
void for_each_block(Shares &shares, const char *packed, int64_t panel_bytes, int64_t steps, int64_t rows, Block block) {
    if (rows == 0) return;  // a step in which nobody's prompt ends wants no logits
    const int64_t row_blocks = (rows + MAX_ROWS - 1) / MAX_ROWS;
    const int64_t a_step = (panel_bytes / (row_blocks * steps) + 63) / 64 * 64;
    shares.take([&](int64_t p) {
        Ahead ahead{packed + (p + 1) * panel_bytes, a_step};
        for (int64_t b = 0; b < row_blocks; b++) {
            const int64_t first = rows * b / row_blocks;
            block(p, first, int(rows * (b + 1) / row_blocks - first), ahead);
        }
    });
}

// Stores the first `columns` (at most PANEL) of one row's results.
static inline void store_row(const vf (&row)[VECTORS], float *out, int64_t columns) {
    if (columns >= PANEL)
        for (int v = 0; v < VECTORS; v++) store(out + v * LANES, row[v]);
    else
        std::memcpy(out, row, columns * sizeof(float));
}
