// Paged keys and values: where a token lies, how it is written, how LANES of them are read at once.
//
// Keys are stored so that one vector holds the same component of LANES neighbouring keys: q.k for all of them needs no
// sum across lanes. Values are stored row by row, padded to whole vectors. Both belong to one (block, KV head):
//   keys    [blocks][groups][block_size / LANES][dim][LANES]
//   values  [blocks][groups][block_size][padded]
//   scales  [blocks][groups][block_size], of an int8 cache (number = code * scale)
// A block size that LANES does not divide keeps its keys row by row as well ("loose"), and tiles are put together in
// scratch memory as they are read: tiles always begin at multiples of LANES, so results do not depend on block_size.
#pragma once
#include "common.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include <algorithm>
#include <cmath>
#include <cstdlib>

struct Layer {
    void *keys, *values;
    float *key_scales, *value_scales;
    int64_t block_size, groups, dim;

    bool quantized() const { return key_scales != nullptr; }
    bool loose() const { return block_size % LANES != 0; }
    int64_t padded() const { return (dim + LANES - 1) / LANES * LANES; }
    int64_t place(int64_t slot, int64_t group) const {  // in units of tokens of one head
        return (slot / block_size * groups + group) * block_size + slot % block_size;
    }
};

// 64-byte aligned memory that a thread keeps between calls; contents are lost when it grows.
struct Scratch {
    float *data = nullptr;
    size_t size = 0;
    float *at_least(size_t floats) {
        if (floats > size) {
            std::free(data);
            size = (floats + 1023) / 1024 * 1024;
            data = static_cast<float *>(std::aligned_alloc(64, size * sizeof(float)));
        }
        return data;
    }
    ~Scratch() { std::free(data); }
};

static inline vf fetch(const float *p) { return load(p); }
static inline vf fetch(const int8_t *p) {
#if defined(__AVX512F__)
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
#elif defined(__AVX2__)
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
#else
    vf v;
    for (int i = 0; i < LANES; ++i) v[i] = p[i];
    return v;
#endif
}

static inline float largest_magnitude(const float *x, int64_t n) {
    float lanes[LANES] = {};
    for (int64_t i = 0; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; ++j) lanes[j] = std::max(lanes[j], std::fabs(x[i + j]));
    for (int64_t i = n / LANES * LANES; i < n; ++i) lanes[0] = std::max(lanes[0], std::fabs(x[i]));
    return *std::max_element(lanes, lanes + LANES);
}

// int8 codes of x, rounded half to even as the reference does; per_step: steps in 1.
static inline void encode(const float *x, int64_t n, float per_step, int8_t *codes) {
    for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<int8_t>(static_cast<int>(std::nearbyintf(x[i] * per_step)));
}

template <class T>
static void put(const Layer &cache, int64_t place, const T *k, const T *v) {
    T *row = static_cast<T *>(cache.keys) + place * cache.dim;
    if (cache.loose()) {
        std::memcpy(row, k, cache.dim * sizeof(T));
    } else {
        const int64_t lane = place % LANES;
        T *tile = row - lane * cache.dim + lane;
        for (int64_t d = 0; d < cache.dim; ++d) tile[d * LANES] = k[d];
    }
    std::memcpy(static_cast<T *>(cache.values) + place * cache.padded(), v, cache.dim * sizeof(T));
}

// codes: 2 * dim bytes of scratch.
static void write_token(const Layer &cache, int64_t slot, int64_t group, const float *k, const float *v,
                        int8_t *codes) {
    const int64_t place = cache.place(slot, group);
    if (!cache.quantized()) return put(cache, place, k, v);
    const float key_peak = largest_magnitude(k, cache.dim), value_peak = largest_magnitude(v, cache.dim);
    cache.key_scales[place] = key_peak / 127.0f;
    cache.value_scales[place] = value_peak / 127.0f;
    encode(k, cache.dim, 1.0f / std::max(key_peak, 1e-30f) * 127.0f, codes);
    encode(v, cache.dim, 1.0f / std::max(value_peak, 1e-30f) * 127.0f, codes + cache.dim);
    put(cache, place, codes, codes + cache.dim);
}

// LANES neighbouring tokens of one sequence and head.
template <class T>
struct Tile {
    const T *keys;    // [dim][LANES]
    const T *values;  // [LANES][padded]
    const float *key_scales, *value_scales;
};

// Elements of T that read_tile needs in scratch for one tile of a loose cache.
static inline int64_t tile_scratch(const Layer &cache) { return LANES * (cache.dim + cache.padded()); }

// Where a sequence's tokens lie, one after another; the division is done once.
struct Walk {
    const Layer &cache;
    const int64_t *table;
    int64_t group, block, offset;

    Walk(const Layer &cache, const int64_t *table, int64_t group, int64_t position)
        : cache(cache), table(table), group(group), block(position / cache.block_size),
          offset(position % cache.block_size) {}

    int64_t place() const { return (table[block] * cache.groups + group) * cache.block_size + offset; }
    void advance(int64_t tokens) {  // at most to the start of the next block
        offset += tokens;
        if (offset == cache.block_size) offset = 0, ++block;
    }
};

// The next tile, of which the first `exist` tokens exist.
template <class T>
static Tile<T> read_tile(Walk &walk, int64_t exist, T *scratch, float *scales) {
    const Layer &cache = walk.cache;
    const T *keys = static_cast<const T *>(cache.keys), *values = static_cast<const T *>(cache.values);
    const int64_t dim = cache.dim, padded = cache.padded();
    if (!cache.loose()) {
        const int64_t place = walk.place();
        walk.advance(LANES);
        return {keys + place * dim, values + place * padded, cache.key_scales + place, cache.value_scales + place};
    }
    T *tile_keys = scratch, *tile_values = scratch + LANES * dim;
    for (int64_t lane = 0; lane < std::min<int64_t>(LANES, exist); ++lane, walk.advance(1)) {
        const int64_t place = walk.place();
        for (int64_t d = 0; d < dim; ++d) tile_keys[d * LANES + lane] = keys[place * dim + d];
        std::memcpy(tile_values + lane * padded, values + place * padded, padded * sizeof(T));
        if (cache.quantized()) {
            scales[lane] = cache.key_scales[place];
            scales[LANES + lane] = cache.value_scales[place];
        }
    }
    return {tile_keys, tile_values, scales, scales + LANES};
}
