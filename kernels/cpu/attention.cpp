// Causal attention over paged keys and values: the block table is walked where it lies, nothing is gathered.
//
// A row is one query token and one head. Its arithmetic is fixed by its position alone, so its result is the same bits
// whether it is a decode or part of a prompt chunk of any length, and whatever else is in the batch: keys are taken in
// spans of SPAN from position 0 upwards, one softmax update each; after each SEGMENT the partial result is merged.
// What only speed depends on may differ: how many rows share a tile that is in cache, which thread takes which segment.
// A key that a row may not see has weight exactly 0 and changes no bit.
#include "paged.h"
#include "softmax.h"
#include <omp.h>
#include <vector>

namespace {

constexpr int TILES = 4;              // in a span
constexpr int SPAN = TILES * LANES;   // keys in one softmax update
constexpr int SEGMENT = 256;          // keys in one partial result
constexpr int ROWS = 24;              // query rows that share a span while it is in cache
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr int AT_ONCE = 3;            // rows in registers: AT_ONCE * 4 accumulators (16 registers here, 32 elsewhere)
#else
constexpr int AT_ONCE = 6;
#endif

struct Step {
    int64_t sequences;
    const int64_t *tables;  // [sequences][table_stride] physical blocks
    int64_t table_stride;
    const int64_t *seq_lens, *query_lens;
    int64_t tokens;  // sum of query_lens
    int64_t threads;
};

struct Queries {
    const float *q;  // [tokens] at q_stride, [heads][dim]
    int64_t q_stride, heads;
    float *out;  // [tokens][heads][dim]
    float scale;
    int64_t window;
};

// Neighbouring queries of one sequence under one KV head, over the segments first_segment .. last_segment - 1.
struct Work {
    int64_t sequence, group, token, position, queries;  // token: row of q; position: in its sequence
    int64_t first_segment, last_segment;
    int64_t partial;  // index of its rows among the partial results, or -1: it covers all segments and writes `out`
};

// Into the second-level cache: the first is too small for a span in use and the next one.
inline void bring_near(const void *p) { __builtin_prefetch(p, 0, 2); }

// Whether the element at this offset begins a cache line, if offset 0 does.
template <class T>
constexpr bool starts_line(int64_t offset) { return offset * sizeof(T) % 64 == 0; }

// scores[r][n * LANES + lane] = q[r] . key, each one a single chain of multiply-adds over the components. `ahead`: the
// tiles wanted after these, brought nearer meanwhile: a hardware prefetcher does not follow a block table.
template <class T, int R, int N>
void dot_tiles(const float *q, int64_t dim, const Tile<T> *tiles, const Tile<T> *ahead, float *scores) {
    vf sum[R][N] = {};
    const T *keys[N], *later[N];
    for (int n = 0; n < N; ++n) keys[n] = tiles[n].keys, later[n] = ahead[n].keys;
    for (int64_t d = 0; d < dim; ++d) {
        vf key[N];
        for (int n = 0; n < N; ++n) {
            key[n] = fetch(keys[n] + d * LANES);
            if (starts_line<T>(d * LANES)) bring_near(later[n] + d * LANES);
        }
        for (int r = 0; r < R; ++r)
            for (int n = 0; n < N; ++n) sum[r][n] += q[r * dim + d] * key[n];
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) {
            if (sizeof(T) == 1) sum[r][n] *= load(tiles[n].key_scales);
            store(scores + r * SPAN + n * LANES, sum[r][n]);
        }
}

// values[r][..] += sum over keys of weights[r][key] * value, keys in ascending order; C vectors of each row.
template <class T, int R, int C>
void add_values(const float *weights, const Tile<T> *tiles, const Tile<T> *ahead, int64_t keys, int64_t padded,
                int64_t offset, float *const *values) {
    vf sum[R][C];
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) sum[r][c] = load(values[r] + offset + c * LANES);
    for (int64_t begin = 0; begin < keys; begin += LANES) {
        const T *row = tiles[begin / LANES].values + offset;
        const int64_t distance = ahead[begin / LANES].values + offset - row;
        const float *weight = weights + begin;
        const int64_t count = std::min<int64_t>(LANES, keys - begin);
        for (int64_t j = 0; j < count; ++j, row += padded) {
            vf value[C];
            for (int c = 0; c < C; ++c) {
                value[c] = fetch(row + c * LANES);
                if (starts_line<T>(c * LANES)) bring_near(row + distance + c * LANES);
            }
            for (int r = 0; r < R; ++r)
                for (int c = 0; c < C; ++c) sum[r][c] += weight[r * SPAN + j] * value[c];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) store(values[r] + offset + c * LANES, sum[r][c]);
}

// Calls f<R> for rows 0 .. rows - 1, AT_ONCE at a time.
template <int R, class F>
void remaining_rows(int64_t row, int64_t rows, F &f) {
    if constexpr (R > 0) {
        if (rows == R) f.template rows<R>(row);
        else remaining_rows<R - 1>(row, rows, f);
    }
}
template <class F>
void in_groups(int64_t rows, F f) {
    int64_t row = 0;
    for (; row + AT_ONCE <= rows; row += AT_ONCE) f.template rows<AT_ONCE>(row);
    remaining_rows<AT_ONCE - 1>(row, rows - row, f);
}

template <class T>
struct Scores {
    const float *q;
    int64_t dim, count;
    const Tile<T> *tiles, *ahead;
    float *scores;

    template <int R>
    void rows(int64_t row) {
        const Tile<T> *later = row ? tiles : ahead;  // once is enough
        static_assert(TILES == 4);
        switch (count) {
            case 1: return dot_tiles<T, R, 1>(q + row * dim, dim, tiles, later, scores + row * SPAN);
            case 2: return dot_tiles<T, R, 2>(q + row * dim, dim, tiles, later, scores + row * SPAN);
            case 3: return dot_tiles<T, R, 3>(q + row * dim, dim, tiles, later, scores + row * SPAN);
            default: return dot_tiles<T, R, 4>(q + row * dim, dim, tiles, later, scores + row * SPAN);
        }
    }
};

template <class T>
struct Values {
    const float *weights;
    const Tile<T> *tiles, *ahead;
    int64_t keys, padded;
    float *states;

    template <int R>
    void rows(int64_t row) {
        const Tile<T> *later = row ? tiles : ahead;
        float *values[R];
        for (int r = 0; r < R; ++r) values[r] = Row{states + (row + r) * Row::size(padded / LANES)}.values();
        int64_t offset = 0;
        for (; offset + 4 * LANES <= padded; offset += 4 * LANES)
            add_values<T, R, 4>(weights + row * SPAN, tiles, later, keys, padded, offset, values);
        for (; offset < padded; offset += LANES)
            add_values<T, R, 1>(weights + row * SPAN, tiles, later, keys, padded, offset, values);
    }
};

// Scores of one row become weights; keys outside [low, high) of this span weigh 0. Only `count` tiles were computed.
template <class T>
void weigh(const Row &row, float *scores, const Tile<T> *tiles, int64_t count, int64_t low, int64_t high,
           int64_t chunks) {
    vi lane;
    for (int i = 0; i < LANES; ++i) lane[i] = i;
    const vf never = spread(-__builtin_inff());
    vf score[TILES], highest = never;
    for (int64_t n = 0; n < count; ++n) {
        const vi key = lane + static_cast<int>(n * LANES);
        score[n] = load(scores + n * LANES);
        if (low > n * LANES || high < (n + 1) * LANES)
            score[n] = (key >= static_cast<int>(low)) & (key < static_cast<int>(high)) ? score[n] : never;
        highest = larger(score[n], highest);
    }
    row.raise(largest(highest), chunks);
    vf sums = load(row.sums());
    for (int64_t n = 0; n < count; ++n) {
        vf weight = exp2_(score[n] - row.peak());
        sums += weight;
        if (sizeof(T) == 1) weight *= load(tiles[n].value_scales);
        store(scores + n * LANES, weight);
    }
    store(row.sums(), sums);
}

template <class T>
struct Worker {
    const Layer &cache;
    const Step &step;
    const Queries &queries;
    int64_t dim = cache.dim, padded = cache.padded(), chunks = padded / LANES, group = queries.heads / cache.groups;
    int64_t row_size = Row::size(chunks);

    // `after` is what this thread will probably take next.
    void run(const Work &work, const Work *after, float *partials, Scratch &scratch) const {
        const int64_t rows = work.queries * group;
        const int64_t loose = cache.loose() ? TILES * (tile_scratch(cache) + 2 * LANES) : 0;
        float *q = scratch.at_least(rows * (padded + SPAN + 2 * row_size) + loose);
        float *scores = q + rows * padded, *running = scores + rows * SPAN, *part = running + rows * row_size;
        float *free = part + rows * row_size;
        if (work.partial >= 0) part = partials + work.partial * row_size;
        for (int64_t r = 0; r < rows; ++r) {
            Row{part + r * row_size}.clear(chunks);
            const float *source = query(work, r);
            for (int64_t d = 0; d < dim; ++d) q[r * dim + d] = source[d] * queries.scale;
        }
        Tile<T> tiles[2][TILES];
        const int64_t end = end_key(work), first = first_key(work);
        if (!cache.loose()) locate(work, first, free, tiles[0]);
        bool alone = true;  // the first part is the running result
        for (int64_t span = first, turn = 0; span < end; span += SPAN, turn ^= 1) {
            const int64_t next = span + SPAN;
            Tile<T> *now = tiles[turn], *later = tiles[turn ^ 1];
            if (cache.loose()) locate(work, span, free, now);
            if (cache.loose() || (next >= end && !after)) std::copy(now, now + TILES, later);
            else if (next < end) locate(work, next, free, later);
            else locate(*after, first_key(*after), free, later);
            attend_span(work, span, std::min<int64_t>(SPAN, end - span), now, later, q, scores, part);
            if (work.partial >= 0 || (next % SEGMENT != 0 && next < end)) continue;
            if (alone) std::swap(running, part);
            for (int64_t r = 0; r < rows; ++r) {
                if (!alone) Row{running + r * row_size}.merge(Row{part + r * row_size}, chunks);
                if (next < end) Row{part + r * row_size}.clear(chunks);
            }
            alone = false;
        }
        if (work.partial >= 0) return;
        for (int64_t r = 0; r < rows; ++r) Row{running + r * row_size}.write(output(work, r), dim);
    }

    // The rows of a work item whose segments were taken apart: partial results merge in the order of the segments.
    void join(const Work &first, int64_t segments, float *partials) const {
        const int64_t rows = first.queries * group;
        float *parts = partials + first.partial * row_size;
        for (int64_t r = 0; r < rows; ++r) {
            const Row row{parts + r * row_size};
            for (int64_t s = 1; s < segments; ++s) row.merge(Row{parts + (s * rows + r) * row_size}, chunks);
            row.write(output(first, r), dim);
        }
    }

  private:
    const float *query(const Work &work, int64_t r) const {
        return queries.q + (work.token + r / group) * queries.q_stride + (work.group * group + r % group) * dim;
    }
    float *output(const Work &work, int64_t r) const {
        return queries.out + ((work.token + r / group) * queries.heads + work.group * group + r % group) * dim;
    }
    int64_t window(const Work &work) const {
        return queries.window ? queries.window : work.position + work.queries;
    }
    int64_t first_key(const Work &work) const {
        const int64_t earliest = std::max<int64_t>(0, work.position - window(work) + 1) / SPAN * SPAN;
        return std::max(work.first_segment * SEGMENT, earliest);
    }
    int64_t end_key(const Work &work) const {
        return std::min(work.position + work.queries, work.last_segment * SEGMENT);
    }
    void locate(const Work &work, int64_t span, float *free, Tile<T> *tiles) const {
        Walk walk(cache, step.tables + work.sequence * step.table_stride, work.group, span);
        T *memory = reinterpret_cast<T *>(free + TILES * 2 * LANES);
        const int64_t exist = end_key(work) - span;
        for (int64_t n = 0; n < TILES; ++n) {
            tiles[n] = tiles[0];
            if (n * LANES >= exist) continue;
            tiles[n] = read_tile<T>(walk, exist - n * LANES, memory + n * tile_scratch(cache), free + n * 2 * LANES);
            if (sizeof(T) == 1) {
                bring_near(tiles[n].key_scales);
                bring_near(tiles[n].value_scales);
            }
        }
    }
    void attend_span(const Work &work, int64_t span, int64_t keys, const Tile<T> *tiles, const Tile<T> *ahead,
                     const float *q, float *scores, float *states) const {
        const int64_t count = (keys + LANES - 1) / LANES, rows = work.queries * group;
        in_groups(rows, Scores<T>{q, dim, count, tiles, ahead, scores});
        int64_t place = work.position - span;  // of the query, from the start of the span
        for (int64_t r = 0; r < rows; ++place)
            for (int64_t h = 0; h < group; ++h, ++r)
                weigh(Row{states + r * row_size}, scores + r * SPAN, tiles, count, place - window(work) + 1, place + 1,
                      chunks);
        in_groups(rows, Values<T>{scores, tiles, ahead, keys, padded, states});
    }
};

// All work of a step, and how many partial results it needs. Long work is cut into segments only where one thread
// would otherwise be left with more than its share.
struct Schedule {
    std::vector<Work> work;
    std::vector<std::pair<Work, int64_t>> joins;  // (first part, number of segments)
    int64_t partials = 0;

    Schedule(const Step &step, const Layer &cache, const Queries &queries) {
        const int64_t group = queries.heads / cache.groups;
        int64_t total = 0, token = 0;
        for (int64_t b = 0; b < step.sequences; ++b) total += step.query_lens[b] * step.seq_lens[b] * cache.groups;
        const int64_t share = total / (4 * step.threads) + 1;
        const int64_t most = std::max<int64_t>(1, ROWS / group);
        for (int64_t b = 0; b < step.sequences; token += step.query_lens[b++]) {
            const int64_t old = step.seq_lens[b] - step.query_lens[b];
            for (int64_t left = step.query_lens[b]; left > 0;) {
                const int64_t count = std::min(left, most), position = old + (left -= count);
                const int64_t earliest = queries.window ? std::max<int64_t>(0, position - queries.window + 1) : 0;
                const int64_t from = earliest / SEGMENT, to = (position + count + SEGMENT - 1) / SEGMENT;
                for (int64_t g = 0; g < cache.groups; ++g) {
                    const Work whole{b, g, token + left, position, count, from, to, -1};
                    if (to - from > 1 && count * (position + count - earliest) > share) cut(whole, count * group);
                    else work.push_back(whole);
                }
            }
        }
    }

    void cut(const Work &whole, int64_t rows) {
        joins.push_back({whole, whole.last_segment - whole.first_segment});
        joins.back().first.partial = partials;
        for (int64_t s = whole.first_segment; s < whole.last_segment; ++s, partials += rows) {
            work.push_back(whole);
            work.back().first_segment = s;
            work.back().last_segment = s + 1;
            work.back().partial = partials;
        }
    }
};

thread_local Scratch scratch, partial_memory;

struct NewTokens {
    const float *k, *v;  // [tokens] at stride, [groups][dim]
    int64_t tokens, stride;
    const int64_t *slots;

    void write(const Layer &cache, int64_t token) const {
        int8_t *codes = reinterpret_cast<int8_t *>(scratch.at_least(cache.dim));
        for (int64_t g = 0; g < cache.groups; ++g) {
            const int64_t from = token * stride + g * cache.dim;
            write_token(cache, slots[token], g, k + from, v + from, codes);
        }
    }
};

template <class T>
void attend_all(const Step &step, const Layer &cache, const Queries &queries, const NewTokens &fresh) {
    const Worker<T> worker{cache, step, queries};
    const Schedule schedule(step, cache, queries);
    float *partials = partial_memory.at_least(schedule.partials * worker.row_size);
    const int64_t items = schedule.work.size(), joins = schedule.joins.size();
    const int64_t stretch = std::clamp<int64_t>(items / (16 * step.threads), 1, 8);  // neighbours, to look ahead
#pragma omp parallel num_threads(step.threads)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < fresh.tokens; ++t) fresh.write(cache, t);
#pragma omp for schedule(dynamic, stretch)
        for (int64_t i = 0; i < items; ++i)
            worker.run(schedule.work[i], i + 1 < items ? &schedule.work[i + 1] : nullptr, partials, scratch);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < joins; ++i)
            worker.join(schedule.joins[i].first, schedule.joins[i].second, partials);
    }
}

}  // namespace

EXPORT int kernel_lanes() { return LANES; }

// k, v: [tokens] at kv_stride, [groups][dim]; written at slots before any query reads. k null: nothing is written.
EXPORT void paged_attention(const Step *step, const Layer *cache, const float *q, int64_t q_stride, int64_t heads,
                            float *out, float scale, int64_t window, const float *k, const float *v,
                            int64_t kv_stride, const int64_t *slots) {
    const Queries queries{q, q_stride, heads, out, scale * 1.44269504f, window};
    const NewTokens fresh{k, v, k ? step->tokens : 0, kv_stride, slots};
    if (cache->quantized()) attend_all<int8_t>(*step, *cache, queries, fresh);
    else attend_all<float>(*step, *cache, queries, fresh);
}

EXPORT void paged_write(const Layer *cache, int64_t tokens, const float *k, const float *v, int64_t kv_stride,
                        const int64_t *slots) {
    for (int64_t t = 0; t < tokens; ++t) NewTokens{k, v, tokens, kv_stride, slots}.write(*cache, t);
}
