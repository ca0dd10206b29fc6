// out = x @ weight.T + bias in fp32, the weight packed as [ceil(out / PANEL)][in][PANEL] (see panels.h).
//
// Batch invariance: each output is one chain of fused multiply-adds over k = 0 .. in-1, however many rows there are and
// wherever its row stands. So a row's result never depends on the other rows, bit for bit.
#include "panels.h"

namespace {

constexpr int64_t STEP = 16;  // values of k between two prefetches

struct Layer {
    const float *packed, *bias;  // bias may be null
    int64_t in, out;
};

template <int R>
void block(const Layer &layer, int64_t panel, const float *x, float *out, Ahead &ahead) {
    vf sum[R][VECTORS] = {};
    const float *w = layer.packed + panel * layer.in * PANEL;
    for (int64_t begin = 0; begin < layer.in; begin += STEP) {
        ahead.fetch();
        const int64_t end = begin + STEP < layer.in ? begin + STEP : layer.in;
        for (int64_t k = begin; k < end; k++, w += PANEL) {
            const vf w0 = load(w), w1 = load(w + LANES), w2 = load(w + 2 * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const float value = x[r * layer.in + k];
                sum[r][0] += w0 * value;
                sum[r][1] += w1 * value;
                sum[r][2] += w2 * value;
            }
        }
    }
    const int64_t column = panel * PANEL, columns = layer.out - column;
    float padded[PANEL] = {};
    if (layer.bias) std::memcpy(padded, layer.bias + column, sizeof(float) * (columns < PANEL ? columns : PANEL));
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        if (layer.bias)
            for (int v = 0; v < VECTORS; v++) sum[r][v] += load(padded + v * LANES);
        store_row(sum[r], out + r * layer.out + column, columns);
    }
}

template <int R = MAX_ROWS>
void block_of(int rows, const Layer &layer, int64_t panel, const float *x, float *out, Ahead &ahead) {
    if (rows == R) return block<R>(layer, panel, x, out, ahead);
    if constexpr (R > 1) block_of<R - 1>(rows, layer, panel, x, out, ahead);
}

}  // namespace

// weight: [out, in] -> packed, filled up with zero columns.
EXPORT void pack_f32(const float *weight, float *packed, int64_t out, int64_t in, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t panel = 0; panel < (out + PANEL - 1) / PANEL; panel++)
        for (int64_t c = 0; c < PANEL; c++) {
            const int64_t column = panel * PANEL + c;
            float *to = packed + panel * in * PANEL + c;
            for (int64_t k = 0; k < in; k++) to[k * PANEL] = column < out ? weight[column * in + k] : 0.0f;
        }
}

// x: [rows, in], out: [rows, out], both contiguous; packed: from pack_f32.
EXPORT void linear_f32(const float *x, const float *packed, const float *bias, float *out, int64_t rows, int64_t in,
                       int64_t out_features, int threads) {
    const Layer layer{packed, bias, in, out_features};
    const int64_t panels = (out_features + PANEL - 1) / PANEL, steps = (in + STEP - 1) / STEP;
#pragma omp parallel num_threads(threads)
    for_each_block((const char *)packed, panels, in * PANEL * sizeof(float), steps, rows,
                   [&](int64_t panel, int64_t row, int count, Ahead &ahead) {
                       block_of(count, layer, panel, x + row * in, out + row * out_features, ahead);
                   });
}

EXPORT int panel_width() { return PANEL; }
