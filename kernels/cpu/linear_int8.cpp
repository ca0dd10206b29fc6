// out = x @ weight.T + bias with 8-bit weights and activations (W8A8).
//
// Weights: one scale per output; a code in -127..127 is stored as code + 128, because the instruction for four byte
// products a lane (vpdpbusd) takes unsigned x signed. Sums therefore start at -128 * (sum of the activations' codes).
// Packed as [ceil(out / PANEL)][ceil(in / 4)][PANEL][4] (see panels.h).
// Activations: one scale per row (token) and group of inputs, max|x| / 127, found here on every call.
//
// Batch invariance: a group's integer sum has no rounding, and the groups are added in fp32 in their order. So a row's
// result does not depend on the other rows.
#include "panels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr int64_t STEP = 8;  // quads of k between two prefetches

struct Layer {
    const uint8_t *packed;
    const float *scales, *bias;  // [out]; bias may be null
    int64_t quads, group_quads, groups, out;
};

// Rows of activations as the kernel reads them.
struct Activations {
    int8_t *codes;    // [rows][quads * 4], padded with zeros
    float *scales;    // [rows][groups]
    int32_t *starts;  // [rows][groups], what the sums start at
};

inline vi load_bytes(const uint8_t *p) { vi v; std::memcpy(&v, p, sizeof v); return v; }

// sum + the four products of unsigned weight bytes and signed activation bytes of each lane; the same integers on any
// machine. activations: four bytes, the same in every lane.
inline vi dot4(vi sum, vi weights, int32_t activations) {
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, _mm512_set1_epi32(activations));
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, _mm256_set1_epi32(activations));
#elif defined(__AVX512BW__)
    // Even and odd bytes as 16-bit pairs: vpmaddubsw would saturate.
    const __m512i w = (__m512i)weights, a = _mm512_set1_epi32(activations);
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(w, _mm512_set1_epi16(255)),
                                           _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8));
    const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(w, 8), _mm512_srai_epi16(a, 8));
    return sum + (vi)_mm512_add_epi32(even, odd);
#elif defined(__AVX2__) && !defined(__AVX512F__)
    // Even and odd bytes as 16-bit pairs: vpmaddubsw would saturate.
    const __m256i w = (__m256i)weights, a = _mm256_set1_epi32(activations);
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(255)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(a, 8));
    return sum + (vi)_mm256_add_epi32(even, odd);
#else
    for (int shift = 0; shift < 32; shift += 8)
        sum += ((weights >> shift) & 255) * int32_t(int8_t(activations >> shift));
    return sum;
#endif
}

// x: [in] -> codes and their sum; returns the scale. Same integers as torch's round(x * (127 / max|x|)), which rounds
// that quotient twice. A NaN or an infinity in x makes the scale NaN or infinite.
inline float quantize(const float *x, int64_t in, int8_t *codes, int32_t &total) {
    int32_t bits = 0x0da24260;  // 1e-30f. Sizes are compared as integers, in which order they are the same
    for (int64_t k = 0; k < in; k++) {
        int32_t value;
        std::memcpy(&value, x + k, 4);
        value &= 0x7fffffff;
        bits = value > bits ? value : bits;
    }
    float largest;
    std::memcpy(&largest, &bits, 4);
    const float inverse = 1.0f / largest * 127.0f;
    total = 0;
    for (int64_t k = 0; k < in; k++) {
        const int32_t code = int32_t(std::nearbyint(x[k] * inverse));
        codes[k] = int8_t(code);
        total += code;
    }
    return largest / 127.0f;
}

void quantize_row(const float *x, int64_t in, int64_t row, const Layer &layer, const Activations &to) {
    int8_t *codes = to.codes + row * layer.quads * 4;
    std::memset(codes + in, 0, layer.quads * 4 - in);
    for (int64_t g = 0; g < layer.groups; g++) {
        const int64_t begin = g * layer.group_quads * 4, end = std::min(in, begin + layer.group_quads * 4);
        int32_t total;
        to.scales[row * layer.groups + g] = quantize(x + begin, end - begin, codes + begin, total);
        to.starts[row * layer.groups + g] = -128 * total;
    }
}

// total: room for R x PANEL floats. The registers hold one group's integers; the sum of groups would not fit beside them.
template <int R>
__attribute__((noinline)) void block(const Layer &layer, int64_t panel, const Activations &from, int64_t row,
                                     float *total, float *out, Ahead &ahead) {
    const int8_t *x = from.codes + row * layer.quads * 4;
    const uint8_t *w = layer.packed + panel * layer.quads * PANEL * 4;
    std::memset(total, 0, sizeof(float) * R * PANEL);
    for (int64_t g = 0; g < layer.groups; g++) {
        vi sum[R][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[r][v] = vi{} + from.starts[(row + r) * layer.groups + g];
        const int64_t group_end = std::min(layer.quads, (g + 1) * layer.group_quads);
        for (int64_t begin = g * layer.group_quads; begin < group_end; begin += STEP) {
            ahead.fetch();
            const int64_t end = std::min(group_end, begin + STEP);
            for (int64_t k = begin; k < end; k++, w += PANEL * 4) {
                const vi w0 = load_bytes(w), w1 = load_bytes(w + VECTOR_BYTES), w2 = load_bytes(w + 2 * VECTOR_BYTES);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    int32_t quad;
                    std::memcpy(&quad, x + (r * layer.quads + k) * 4, 4);
                    sum[r][0] = dot4(sum[r][0], w0, quad);
                    sum[r][1] = dot4(sum[r][1], w1, quad);
                    sum[r][2] = dot4(sum[r][2], w2, quad);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const float scale = from.scales[(row + r) * layer.groups + g];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                float *at = total + r * PANEL + v * LANES;
                store(at, load(at) + __builtin_convertvector(sum[r][v], vf) * scale);
            }
        }
        asm volatile("" ::: "memory");  // else the compiler carries `total` along in registers that it does not have
    }
    const int64_t column = panel * PANEL, columns = std::min<int64_t>(PANEL, layer.out - column);
    float scales[PANEL] = {}, bias[PANEL] = {};
    std::memcpy(scales, layer.scales + column, sizeof(float) * columns);
    if (layer.bias) std::memcpy(bias, layer.bias + column, sizeof(float) * columns);
    for (int r = 0; r < R; r++) {
        vf row_out[VECTORS];
        for (int v = 0; v < VECTORS; v++)
            row_out[v] = load(total + r * PANEL + v * LANES) * load(scales + v * LANES) + load(bias + v * LANES);
        store_row(row_out, out + (row + r) * layer.out + column, columns);
    }
}

template <int R = MAX_ROWS>
void block_of(int rows, const Layer &layer, int64_t panel, const Activations &x, int64_t row, float *out,
              Ahead &ahead) {
    float total[R * PANEL];
    if (rows == R) return block<R>(layer, panel, x, row, total, out, ahead);
    if constexpr (R > 1) block_of<R - 1>(rows, layer, panel, x, row, out, ahead);
}

}  // namespace

// weight: [out, in] -> packed (filled up with zero weights) and scales: [out].
EXPORT void pack_int8(const float *weight, uint8_t *packed, float *scales, int64_t out, int64_t in, int threads) {
    const int64_t quads = (in + 3) / 4;
#pragma omp parallel num_threads(threads)
    {
        std::vector<int8_t> codes(quads * 4);
#pragma omp for
        for (int64_t column = 0; column < (out + PANEL - 1) / PANEL * PANEL; column++) {
            int32_t total;
            if (column < out) scales[column] = quantize(weight + column * in, in, codes.data(), total);
            else std::fill(codes.begin(), codes.end(), 0);
            uint8_t *to = packed + (column / PANEL * quads * PANEL + column % PANEL) * 4;
            for (int64_t k = 0; k < quads * 4; k++) to[k / 4 * PANEL * 4 + k % 4] = uint8_t(codes[k] + 128);
        }
    }
}

// x: [rows, in], out: [rows, out], contiguous; packed, scales: from pack_int8. group: inputs that share an activation
// scale, a multiple of 4; group * 127 * 255 < 2^31.
EXPORT void linear_int8(const float *x, const uint8_t *packed, const float *scales, const float *bias, float *out,
                        int64_t rows, int64_t in, int64_t out_features, int64_t group, int threads) {
    const int64_t quads = (in + 3) / 4, panels = (out_features + PANEL - 1) / PANEL, groups = (in + group - 1) / group;
    const Layer layer{packed, scales, bias, quads, group / 4, groups, out_features};
    static thread_local std::vector<int8_t> codes;
    static thread_local std::vector<float> row_scales;
    static thread_local std::vector<int32_t> starts;
    codes.resize(rows * quads * 4), row_scales.resize(rows * groups), starts.resize(rows * groups);
    const Activations quantized{codes.data(), row_scales.data(), starts.data()};
    const int64_t steps = groups * ((layer.group_quads + STEP - 1) / STEP);
    Shares shares(panels, threads);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for
        for (int64_t row = 0; row < rows; row++) quantize_row(x + row * in, in, row, layer, quantized);
        for_each_block(shares, (const char *)packed, quads * PANEL * 4, steps, rows,
                       [&](int64_t panel, int64_t row, int count, Ahead &ahead) {
                           block_of(count, layer, panel, quantized, row, out, ahead);
                       });
    }
}
