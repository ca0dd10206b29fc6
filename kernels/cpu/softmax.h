// Online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867) in powers of two: scores come multiplied by log2(e).
#pragma once
#include "common.h"

constexpr float NOTHING_YET = -1e30f;  // the running maximum before any score; finite, so that differences are not NaN

static inline vf spread(float x) { return vf{} + x; }
static inline vf larger(vf a, vf b) { return a > b ? a : b; }

// 2^x for x <= 0, to 2e-7 relative; exactly 1 at 0 and exactly 0 below 2^-126 (and at minus infinity).
static inline vf exp2_(vf x) {
    const vf magic = spread(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    const vf safe = larger(x, spread(-126.0f));
    const vf rounded = safe + magic;
    const vf f = safe - (rounded - magic);
    vf p = spread(0.001326472731307149f);
    p = p * f + 0.009671512991189957f;
    p = p * f + 0.05550733581185341f;
    p = p * f + 0.24022242426872253f;
    p = p * f + 0.6931470036506653f;
    p = p * f + 1.0f;
    const vf result = (vf)((vi)p + (((vi)rounded - (vi)magic) << 23));
    return x < -126.0f ? vf{} : result;
}

#if defined(__clang__)
#define SHUFFLE(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
#define SHUFFLE(v, ...) __builtin_shuffle(v, (vi){__VA_ARGS__})
#endif

// Folds a vector onto itself, halves first: the order of the additions never changes.
template <class Combine>
static inline float across(vf v, Combine combine) {
#if VECTOR_BYTES == 64
    v = combine(v, SHUFFLE(v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    v = combine(v, SHUFFLE(v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    v = combine(v, SHUFFLE(v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    v = combine(v, SHUFFLE(v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
#elif VECTOR_BYTES == 32
    v = combine(v, SHUFFLE(v, 4, 5, 6, 7, 0, 1, 2, 3));
    v = combine(v, SHUFFLE(v, 2, 3, 0, 1, 6, 7, 4, 5));
    v = combine(v, SHUFFLE(v, 1, 0, 3, 2, 5, 4, 7, 6));
#else
    v = combine(v, SHUFFLE(v, 2, 3, 0, 1));
    v = combine(v, SHUFFLE(v, 1, 0, 3, 2));
#endif
    return v[0];
}
static inline float largest(vf v) {
    return across(v, [](vf a, vf b) { return larger(a, b); });
}
static inline float total(vf v) {
    return across(v, [](vf a, vf b) { return a + b; });
}

// What one query row knows after some keys, in size() floats: the largest score, lane-wise sums of 2^(score - peak),
// and the values weighted likewise (`chunks` vectors).
struct Row {
    float *state;

    static int64_t size(int64_t chunks) { return (2 + chunks) * LANES; }
    float &peak() const { return state[0]; }
    float *sums() const { return state + LANES; }
    float *values() const { return state + 2 * LANES; }

    void clear(int64_t chunks) const {
        peak() = NOTHING_YET;
        for (int64_t c = 0; c <= chunks; ++c) store(sums() + c * LANES, vf{});
    }

    // Makes the peak at least `score`. Nothing changes, to the bit, where it is so already.
    void raise(float score, int64_t chunks) const {
        if (score <= peak()) return;
        const vf shrink = exp2_(spread(peak() - score));
        peak() = score;
        for (int64_t c = 0; c <= chunks; ++c) {
            float *part = sums() + c * LANES;
            store(part, load(part) * shrink);
        }
    }

    // Adds what another row knows of later keys. A row that saw nothing adds exactly nothing.
    void merge(const Row &later, int64_t chunks) const {
        raise(later.peak(), chunks);
        const vf weight = exp2_(spread(later.peak() - peak()));
        for (int64_t c = 0; c <= chunks; ++c) {
            float *part = sums() + c * LANES;
            store(part, load(part) + load(later.sums() + c * LANES) * weight);
        }
    }

    void write(float *out, int64_t dim) const {
        const float share = 1.0f / total(load(sums()));
        for (int64_t d = 0; d < dim; ++d) out[d] = values()[d] * share;
    }
};
