// out = x @ weight.T + bias in fp32, the weight packed in panels of neighbouring columns (see panels.h).
//
// Values of k go in pairs. A weight that came from a bf16 checkpoint has 16 zero bits at its end: such a pair is kept in
// one 32-bit word, first value in the low half, which halves what a step reads from memory and loses nothing. Packed as
//   float     [ceil(out / PANEL)][ceil(in / 2)][2][PANEL]
//   uint32_t  [ceil(out / PANEL)][ceil(in / 2)][PANEL]
//
// Batch invariance: each output is one chain of fused multiply-adds over k = 0 .. in-1, however many rows there are and
// wherever its row stands. So a row's result never depends on the other rows, bit for bit.
#include "panels.h"
#include <type_traits>

namespace {

constexpr int64_t STEP = 16;  // values of k between two prefetches; even

struct Layer {
    const void *packed;
    const float *bias;  // may be null
    int64_t in, out;
};

template <class W>
constexpr int64_t WORDS = std::is_same<W, float>::value ? 2 : 1;  // in a pair of one column

template <class W>
int64_t words_in_panel(int64_t in) { return (in + 1) / 2 * WORDS<W> * PANEL; }

inline vf first(const float *w) { return load(w); }
inline vf second(const float *w) { return load(w + PANEL); }
inline vi both(const uint32_t *w) { vi v; std::memcpy(&v, w, sizeof v); return v; }
inline vf first(const uint32_t *w) { return (vf)(both(w) << 16); }
inline vf second(const uint32_t *w) { return (vf)(both(w) & ~0xffff); }

template <int R>
inline void add(vf (&sum)[R][VECTORS], vf w0, vf w1, vf w2, const float *x, int64_t stride) {
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const float value = x[r * stride];
        sum[r][0] += w0 * value;
        sum[r][1] += w1 * value;
        sum[r][2] += w2 * value;
    }
}

template <int R, class W>
void block(const Layer &layer, int64_t panel, const float *x, float *out, Ahead &ahead) {
    vf sum[R][VECTORS] = {};
    const int64_t in = layer.in, even = in & ~1;
    const W *w = static_cast<const W *>(layer.packed) + panel * words_in_panel<W>(in);
    for (int64_t begin = 0; begin < even; begin += STEP) {
        ahead.fetch();
        const int64_t end = begin + STEP < even ? begin + STEP : even;
        for (int64_t k = begin; k < end; k += 2, w += WORDS<W> * PANEL) {
            add<R>(sum, first(w), first(w + LANES), first(w + 2 * LANES), x + k, in);
            add<R>(sum, second(w), second(w + LANES), second(w + 2 * LANES), x + k + 1, in);
        }
    }
    if (even < in) add<R>(sum, first(w), first(w + LANES), first(w + 2 * LANES), x + even, in);
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

template <class W, int R = MAX_ROWS>
void block_of(int rows, const Layer &layer, int64_t panel, const float *x, float *out, Ahead &ahead) {
    if (rows == R) return block<R, W>(layer, panel, x, out, ahead);
    if constexpr (R > 1) block_of<W, R - 1>(rows, layer, panel, x, out, ahead);
}

template <class W>
void multiply(const Layer &layer, const float *x, float *out, int64_t rows, int threads) {
    const int64_t panels = (layer.out + PANEL - 1) / PANEL, steps = (layer.in + STEP - 1) / STEP;
    const auto *packed = static_cast<const char *>(layer.packed);
    Shares shares(panels, threads);
#pragma omp parallel num_threads(threads)
    for_each_block(shares, packed, words_in_panel<W>(layer.in) * sizeof(W), steps, rows,
                   [&](int64_t panel, int64_t row, int count, Ahead &ahead) {
                       block_of<W>(count, layer, panel, x + row * layer.in, out + row * layer.out, ahead);
                   });
}

// The word of a pair, from the bits of its two values.
void put(float *packed, int64_t word, uint32_t low, uint32_t high) {
    const uint32_t pair[2] = {low, high};
    std::memcpy(packed + word / PANEL * 2 * PANEL + word % PANEL, &pair[0], 4);
    std::memcpy(packed + (word / PANEL * 2 + 1) * PANEL + word % PANEL, &pair[1], 4);
}
void put(uint32_t *packed, int64_t word, uint32_t low, uint32_t high) { packed[word] = low >> 16 | high; }

template <class W>
void pack(const uint32_t *weight, W *packed, int64_t out, int64_t in, int threads) {
    const int64_t pairs = (in + 1) / 2;
#pragma omp parallel for num_threads(threads)
    for (int64_t panel = 0; panel < (out + PANEL - 1) / PANEL; panel++)
        for (int64_t c = 0; c < PANEL; c++) {
            const int64_t column = panel * PANEL + c;
            const uint32_t *from = weight + column * in;
            for (int64_t p = 0; p < pairs; p++) {
                const bool inside = column < out, whole = inside && 2 * p + 1 < in;
                put(packed, (panel * pairs + p) * PANEL + c, inside ? from[2 * p] : 0, whole ? from[2 * p + 1] : 0);
            }
        }
}

}  // namespace

// weight: [out, in], the bits of fp32 -> packed, filled up with zeros. halves: every value fits in 16 bits.
EXPORT void pack_f32(const uint32_t *weight, void *packed, int64_t out, int64_t in, int halves, int threads) {
    if (halves) pack(weight, static_cast<uint32_t *>(packed), out, in, threads);
    else pack(weight, static_cast<float *>(packed), out, in, threads);
}

// x: [rows, in], out: [rows, out], both contiguous; packed: from pack_f32.
EXPORT void linear_f32(const float *x, const void *packed, const float *bias, float *out, int64_t rows, int64_t in,
                       int64_t out_features, int halves, int threads) {
    const Layer layer{packed, bias, in, out_features};
    if (halves) multiply<uint32_t>(layer, x, out, rows, threads);
    else multiply<float>(layer, x, out, rows, threads);
}

EXPORT int panel_width() { return PANEL; }
