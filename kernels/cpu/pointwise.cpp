// Norms, rotary embedding and gated activations, fp32. Every row is computed alone and in one fixed order, so its
// result does not depend on the other rows; threads share the rows out only where there is enough to share.
#include "common.h"
#include "softmax.h"
#include <algorithm>
#include <cmath>

namespace {

constexpr float LOG2_E = 1.44269504f;
constexpr int64_t WORTH_A_THREAD = 1 << 15;  // elements

int threads_for(int64_t elements, int64_t threads) {
    return static_cast<int>(std::max<int64_t>(1, std::min(threads, elements / WORTH_A_THREAD)));
}

// Loads and stores of the last n < LANES elements of a row.
vf load_some(const float *p, int64_t n) {
    vf v{};
    std::memcpy(&v, p, n * sizeof(float));
    return v;
}
void store_some(float *p, vf v, int64_t n) { std::memcpy(p, &v, n * sizeof(float)); }

// Applies f(vectors of x at the same place...) along a row of n elements.
template <class F, class... In>
void along(int64_t n, float *out, F f, const In *...in) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(out + i, f(load(in + i)...));
    if (i < n) store_some(out + i, f(load_some(in + i, n - i)...), n - i);
}

float sum_of_squares(const float *x, int64_t n) {
    vf sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; ++j) {
            const vf v = load(x + i + j * LANES);
            sums[j] += v * v;
        }
    for (; i < n; i += LANES) {
        const vf v = load_some(x + i, std::min<int64_t>(LANES, n - i));
        sums[0] += v * v;
    }
    return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void normalise(const float *x, const float *weight, float eps, int64_t n, float *out) {
    const float scale = 1.0f / std::sqrt(sum_of_squares(x, n) / static_cast<float>(n) + eps);
    along(n, out, [scale](vf v, vf w) { return v * scale * w; }, x, weight);
}

vf sigmoid(vf x) {
    const vf e = exp2_(x < 0.0f ? x * LOG2_E : x * -LOG2_E);  // of -|x|: never overflows
    return (x < 0.0f ? e : spread(1.0f)) / (e + 1.0f);
}
vf silu(vf x) { return x * sigmoid(x); }
// 0.5 x (1 + tanh(u)) = x sigmoid(2 u)
vf gelu_tanh(vf x) { return x * sigmoid(1.5957691216f * (x + 0.044715f * (x * x * x))); }

// (first, second) turned by the angle of (cos, sin), n <= LANES pairs.
void rotate(float *first, float *second, const float *cos, const float *sin, int64_t n) {
    const bool all = n == LANES;
    const vf a = all ? load(first) : load_some(first, n), b = all ? load(second) : load_some(second, n);
    const vf c = all ? load(cos) : load_some(cos, n), s = all ? load(sin) : load_some(sin, n);
    const vf turned_a = a * c - b * s, turned_b = b * c + a * s;
    if (all) store(first, turned_a), store(second, turned_b);
    else store_some(first, turned_a, n), store_some(second, turned_b, n);
}

template <class F>
void gated(const float *gate_up, int64_t rows, int64_t n, float *out, int64_t threads, F activation) {
#pragma omp parallel for num_threads(threads_for(rows * n, threads)) schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        const float *gate = gate_up + 2 * r * n;
        along(n, out + r * n, [activation](vf g, vf u) { return activation(g) * u; }, gate, gate + n);
    }
}

// The first of the largest elements. Each lane keeps its best and where it was; of equal ones the earliest wins.
int64_t first_largest(const float *x, int64_t n) {
    vi lane, where{};
    for (int i = 0; i < LANES; ++i) lane[i] = i;
    vf best = spread(-__builtin_inff());
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vf v = load(x + i);
        where = v > best ? lane + static_cast<int>(i) : where;
        best = larger(v, best);
    }
    float value = i ? largest(best) : x[0];
    int64_t place = i ? n : 0;
    for (int j = 0; i && j < LANES; ++j)
        if (best[j] == value) place = std::min<int64_t>(place, value == -__builtin_inff() ? 0 : where[j]);
    for (; i < n; ++i)
        if (x[i] > value) value = x[i], place = i;
    return place;
}

}  // namespace

// x: [rows][n] -> out: [rows]
EXPORT void argmax(const float *x, int64_t rows, int64_t n, int64_t *out, int64_t threads) {
#pragma omp parallel for num_threads(std::min<int64_t>(rows, threads_for(rows * n, threads))) schedule(static)
    for (int64_t r = 0; r < rows; ++r) out[r] = first_largest(x + r * n, n);
}

// x: [rows / inner] at stride, [inner][n] -> out: [rows][n]
EXPORT void rms_norm(const float *x, int64_t stride, int64_t inner, const float *weight, float eps, int64_t rows,
                     int64_t n, float *out, int64_t threads) {
#pragma omp parallel for num_threads(threads_for(rows * n, threads)) schedule(static)
    for (int64_t r = 0; r < rows; ++r)
        normalise(x + r / inner * stride + r % inner * n, weight, eps, n, out + r * n);
}

// residual += x, in place; out = norm(residual). All [rows][n].
EXPORT void add_rms_norm(const float *x, float *residual, const float *weight, float eps, int64_t rows, int64_t n,
                         float *out, int64_t threads) {
#pragma omp parallel for num_threads(threads_for(rows * n, threads)) schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        float *sum = residual + r * n;
        along(n, sum, [](vf a, vf b) { return a + b; }, x + r * n, static_cast<const float *>(sum));
        normalise(sum, weight, eps, n, out + r * n);
    }
}

// qk: [rows] at stride, [heads][2 * half], rotated in place; cos, sin: [rows][half]
EXPORT void rope(float *qk, int64_t stride, const float *cos, const float *sin, int64_t rows, int64_t heads,
                 int64_t half, int64_t threads) {
#pragma omp parallel for num_threads(threads_for(2 * rows * heads * half, threads)) schedule(static)
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t h = 0; h < heads; ++h) {
            float *first = qk + r * stride + 2 * h * half;
            for (int64_t i = 0; i < half; i += LANES)
                rotate(first + i, first + half + i, cos + r * half + i, sin + r * half + i,
                       std::min<int64_t>(LANES, half - i));
        }
}

// gate_up: [rows][2 * n] -> out: [rows][n]
EXPORT void silu_mul(const float *gate_up, int64_t rows, int64_t n, float *out, int64_t threads) {
    gated(gate_up, rows, n, out, threads, silu);
}
EXPORT void gelu_tanh_mul(const float *gate_up, int64_t rows, int64_t n, float *out, int64_t threads) {
    gated(gate_up, rows, n, out, threads, gelu_tanh);
}
